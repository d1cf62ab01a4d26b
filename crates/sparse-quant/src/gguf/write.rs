//! Writing a planned GGUF file, a tensor at a time.

use std::io::Write;
use std::path::Path;

use sparse_checkpoint::AtomicFile;

use super::container::ALIGNMENT;
use super::names::Rows;
use super::plan::{GgufPlan, Planned};
use crate::method::ggml::quantize;
use crate::weights::{read_matrix, read_values};
use crate::{Error, Matrix};

/// Writes the file; `importance` gives the mean square of each input of a layer, where it is
/// known, and `step` is told of each tensor's weights.
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
    file.write_all(&plan.head()).map_err(failed)?;
    for planned in &plan.tensors {
        step(planned.source.elements())?;
        let weights = weights(plan, planned)?;
        let importance = planned.layer.and_then(&importance);
        let importance = importance.filter(|importance| importance.len() == planned.cols);
        let mut bytes = quantize(&weights, planned.entry.kind, importance.as_deref());
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        file.write_all(&bytes).map_err(failed)?;
    }
    file.commit()?;
    Ok(())
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
