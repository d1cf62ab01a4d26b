//! Products of many rows with a matrix, on the threads of the current pool.

use rayon::prelude::*;
use sparse_engine::{Dense, Linear, Prepared, Rows, TILE_OUTPUTS};

/// Every row times every output of `matrix`: `[rows, outputs]`.
///
/// # Panics
/// If `rows` is not a whole number of rows.
pub(crate) fn product(rows: &[f32], matrix: &Dense) -> Vec<f32> {
    let (inputs, outputs) = (matrix.inputs(), matrix.outputs());
    assert!(rows.len().is_multiple_of(inputs));
    let mut out = vec![0.0; rows.len() / inputs * outputs];
    let most = matrix.tile_rows();
    out.par_chunks_mut(most * outputs)
        .zip(rows.par_chunks(most * inputs))
        .for_each(|(out, rows)| tiles(rows, matrix, out));
    out
}

/// [`product`] on this thread, of at most [`Linear::tile_rows`] rows.
pub(crate) fn tiles(rows: &[f32], matrix: &Dense, out: &mut [f32]) {
    let (inputs, outputs) = (matrix.inputs(), matrix.outputs());
    let count = rows.len() / inputs;
    let rows = Rows::new(rows, count, inputs);
    let mut tile = vec![0.0; count * TILE_OUTPUTS.min(outputs)];
    for start in (0..outputs).step_by(TILE_OUTPUTS) {
        let columns = start..(start + TILE_OUTPUTS).min(outputs);
        let tile = &mut tile[..count * columns.len()];
        matrix.tile(rows, &Prepared::default(), columns.clone(), tile);
        let lines = out.chunks_exact_mut(outputs);
        for (line, values) in lines.zip(tile.chunks_exact(columns.len())) {
            line[columns.clone()].copy_from_slice(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_output() {
        let (count, inputs, outputs) = (401, 5, 131);
        let rows: Vec<f32> = (0..count * inputs).map(|i| (i % 7) as f32 - 3.0).collect();
        let weights: Vec<f32> = (0..outputs * inputs).map(|i| (i % 11) as f32).collect();
        let made = product(&rows, &Dense::from_f32(&weights, inputs));
        for (at, row) in rows.chunks(inputs).enumerate() {
            for (n, weights) in weights.chunks(inputs).enumerate() {
                let expected: f32 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
                assert_eq!(made[at * outputs + n], expected);
            }
        }
    }
}
