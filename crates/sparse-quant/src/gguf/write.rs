//! Writing a planned GGUF file, a tensor at a time.

use std::io::Write;
use std::path::Path;

use half::f16;
use rayon::prelude::*;
use sparse_checkpoint::{AtomicFile, TensorRef};

use super::container::ALIGNMENT;
use super::names::Rows;
use super::plan::{GgufPlan, Planned};
use crate::Error;
use crate::method::ggml::{GgmlType, quantize_row};
use crate::weights::{read_columns, read_row, read_values};

/// Bytes of weights that a thread reads and quantizes at a time: they stay in its second-level
/// cache.
const PIECE: usize = 1 << 17;
/// Columns that a thread turns into rows at a time: neighbours share what a processor reads.
const COLUMNS: usize = 32;

/// Writes the file; `importance` gives the mean square of each input of a layer, where it is
/// known, and `step` is told of each tensor's weights. A tensor is written while the next one is
/// quantized.
///
/// # Errors
/// If a tensor cannot be read or is not finite, the file cannot be written, or `step` fails.
pub(crate) fn write(
    plan: &GgufPlan<'_>,
    path: &Path,
    importance: impl Fn(&str) -> Option<Vec<f32>>,
    mut step: impl FnMut(u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut file = AtomicFile::create(path)?;
    let failed = |cause| Error::Io {
        action: "write",
        path: path.to_owned(),
        cause,
    };
    let (mut ready, mut next, mut stored) = (plan.head(), Vec::new(), Vec::new());
    for planned in &plan.tensors {
        step(planned.source.elements())?;
        let importance = planned.layer.and_then(&importance);
        let importance = importance.filter(|importance| importance.len() == planned.cols);
        let (written, made) = rayon::join(
            || file.write_all(&ready).map_err(failed),
            || make(plan, planned, importance.as_deref(), &mut stored, &mut next),
        );
        written?;
        made?;
        std::mem::swap(&mut ready, &mut next);
    }
    file.write_all(&ready).map_err(failed)?;
    if let Some((_, bytes)) = &plan.slowed {
        let mut bytes = bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        file.write_all(&bytes).map_err(failed)?;
    }
    file.commit()?;
    Ok(())
}

/// Fills `out` with a tensor as it is in the file; `stored` is room for its bytes in the checkpoint.
fn make(
    plan: &GgufPlan<'_>,
    planned: &Planned<'_>,
    importance: Option<&[f32]>,
    stored: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    out.resize(planned.bytes() as usize, 0);
    if planned.source.shape().len() == 1 {
        make_vector(planned, out)?;
    } else if planned.layer.is_some() && plan.architecture.transposed() {
        make_columns(planned, importance, stored, out)?;
    } else {
        make_rows(planned, importance, out)?;
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok(())
}

/// [`make`] for a matrix that is stored outputs first: each thread reads the rows that it
/// quantizes.
fn make_rows(
    planned: &Planned<'_>,
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<(), Error> {
    let kind = planned.entry.kind;
    let &Planned {
        source, rows, cols, ..
    } = planned;
    let width = kind.row_bytes(cols);
    let stored = source.byte_len() as usize / rows.max(1);
    if width == 0 || stored == 0 {
        return Ok(());
    }
    let together = (PIECE / stored).max(1);
    let pieces = out.par_chunks_mut(together * width).enumerate();
    let made = pieces.map_init(
        || (Vec::new(), vec![0.0; cols]),
        |(bytes, row), (piece, out)| {
            let first = piece * together;
            let count = out.len() / width;
            bytes.resize(count * stored, 0);
            // Rows that keep their order lie together.
            let runs = if planned.moved == Rows::Kept {
                1
            } else {
                count
            };
            for (at, run) in bytes.chunks_exact_mut(count / runs * stored).enumerate() {
                let start = (planned.moved.source(first + at, rows) * stored) as u64;
                source.read_range(start..start + run.len() as u64, run)?;
            }
            let pairs = bytes.chunks_exact(stored).zip(out.chunks_exact_mut(width));
            for (at, (bytes, out)) in pairs.enumerate() {
                let before = planned.moved.source(first + at, rows) * cols;
                read_row(source, bytes, before, row)?;
                check_range(source, kind, row, |at| before + at)?;
                quantize_row(row, kind, importance, out);
            }
            Ok(())
        },
    );
    // The first that is wrong, whichever thread was first to see one.
    let made: Vec<Result<(), Error>> = made.collect();
    made.into_iter().collect()
}

/// [`make`] for a matrix that is stored inputs first.
fn make_columns(
    planned: &Planned<'_>,
    importance: Option<&[f32]>,
    stored: &mut Vec<u8>,
    out: &mut [u8],
) -> Result<(), Error> {
    let kind = planned.entry.kind;
    let &Planned {
        source, rows, cols, ..
    } = planned;
    stored.resize(source.byte_len() as usize, 0); // at most the file
    source.read_range(0..source.byte_len(), stored)?;
    let width = kind.row_bytes(cols);
    if width == 0 {
        return Ok(());
    }
    let pieces = out.par_chunks_mut(COLUMNS * width).enumerate();
    let made = pieces.map_init(Vec::new, |values, (piece, out)| {
        let first = piece * COLUMNS;
        let wanted = first..first + out.len() / width;
        let columns: Vec<usize> = wanted.map(|row| planned.moved.source(row, rows)).collect();
        values.resize(columns.len() * cols, 0.0);
        let finite = read_columns(source, stored, rows, &columns, values)?;
        let pairs = values.chunks_exact(cols).zip(out.chunks_exact_mut(width));
        for ((row, out), column) in pairs.zip(columns) {
            check_range(source, kind, row, |at| at * rows + column)?;
            quantize_row(row, kind, importance, out);
        }
        Ok(finite)
    });
    let finite: Result<Vec<bool>, Error> = made.collect();
    if finite?.contains(&false) {
        // It names the first in the order in which they are stored.
        read_values(source)?;
    }
    Ok(())
}

/// Refuses weights whose blocks could not store their scale, which is f16; `place` gives the place in
/// the checkpoint.
fn check_range(
    source: TensorRef<'_>,
    kind: GgmlType,
    row: &[f32],
    place: impl Fn(usize) -> usize,
) -> Result<(), Error> {
    let beyond = |value: &f32| value.is_finite() && value.abs() > f16::MAX.to_f32();
    let wide = kind == GgmlType::F32;
    if wide || !row.iter().fold(false, |any, value| any | beyond(value)) {
        return Ok(());
    }
    let at = row.iter().position(beyond).unwrap_or_default();
    Err(Error::TooLarge {
        path: source.shard().full_path().to_owned(),
        tensor: source.name().to_owned(),
        at: place(at),
        value: row[at],
        dtype: "float16",
    })
}

/// [`make`] for a vector: a bias moves as its layer's rows do.
fn make_vector(planned: &Planned<'_>, out: &mut [u8]) -> Result<(), Error> {
    let values = read_values(planned.source)?;
    let moved: Vec<f32> = (0..values.len())
        .map(|at| values[planned.moved.source(at, values.len())])
        .collect();
    quantize_row(&moved, planned.entry.kind, None, out);
    Ok(())
}
