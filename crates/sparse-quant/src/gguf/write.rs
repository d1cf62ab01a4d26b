//! Writing a planned GGUF file, a tensor at a time.

use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use sparse_checkpoint::AtomicFile;

use super::container::ALIGNMENT;
use super::names::Rows;
use super::plan::{GgufPlan, Planned};
use crate::method::ggml::{quantize, quantize_row};
use crate::weights::{read_matrix, read_row, read_values};
use crate::{Error, Matrix};

/// Bytes of weights that a thread reads and quantizes at a time: they stay in its second-level
/// cache.
const PIECE: usize = 1 << 17;

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
    let (mut ready, mut next) = (plan.head(), Vec::new());
    for planned in &plan.tensors {
        step(planned.source.elements())?;
        let importance = planned.layer.and_then(&importance);
        let importance = importance.filter(|importance| importance.len() == planned.cols);
        let (written, made) = rayon::join(
            || file.write_all(&ready).map_err(failed),
            || make(plan, planned, importance.as_deref(), &mut next),
        );
        written?;
        made?;
        std::mem::swap(&mut ready, &mut next);
    }
    file.write_all(&ready).map_err(failed)?;
    file.commit()?;
    Ok(())
}

/// Fills `out` with a tensor as it is in the file.
fn make(
    plan: &GgufPlan<'_>,
    planned: &Planned<'_>,
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let kind = planned.entry.kind;
    let transposed = planned.layer.is_some() && plan.architecture.transposed();
    if planned.source.shape().len() == 1 || transposed {
        *out = quantize(&weights(plan, planned)?, kind, importance);
    } else {
        out.resize(planned.bytes() as usize, 0);
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
    let (source, kind, rows, cols) = (
        planned.source,
        planned.entry.kind,
        planned.rows,
        planned.cols,
    );
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
                quantize_row(row, kind, importance, out);
            }
            Ok(())
        },
    );
    // The first that is wrong, whichever thread was first to see one.
    let made: Vec<Result<(), Error>> = made.collect();
    made.into_iter().collect()
}

/// A tensor's weights, outputs first, with rows where llama.cpp wants them.
fn weights(plan: &GgufPlan<'_>, planned: &Planned<'_>) -> Result<Matrix, Error> {
    let transposed = planned.layer.is_some() && plan.architecture.transposed();
    let vector = planned.source.shape().len() == 1;
    let stored = if vector {
        let values = read_values(planned.source)?;
        // A bias moves as its layer's rows do.
        Matrix::new(values.len(), 1, values)
    } else {
        Some(read_matrix(planned.source, transposed)?)
    };
    let stored = stored.unwrap_or(Matrix::zeros(0, 0));
    let mut moved = Matrix::zeros(stored.rows(), stored.cols());
    if planned.moved == Rows::Kept {
        moved = stored;
    } else {
        for row in 0..stored.rows() {
            let source = planned.moved.source(row, stored.rows());
            moved.row_mut(row).copy_from_slice(stored.row(source));
        }
    }
    if vector {
        let values = moved.into_data();
        return Ok(Matrix::new(1, values.len(), values).unwrap_or(Matrix::zeros(0, 0)));
    }
    Ok(moved)
}
