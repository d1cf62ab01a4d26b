//! LLM.int8: eight bits per weight, a scale per row.
//!
//! Equal to bitsandbytes 0.50, code for code: weights go through f16 first, as they do there.
//! Which input columns take the floating-point path (those with a magnitude of 6 or more) is
//! decided when the layer runs, not here.

use half::f16;
use rayon::prelude::*;

use crate::Matrix;

/// 1 / 127, as the library rounds it.
pub const STEP: f32 = 7.874_016e-3;

/// The magnitude from which on an activation takes the floating-point path.
pub const OUTLIER: f32 = 6.0;

/// A matrix as signed bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Rows {
    /// Number of outputs.
    pub rows: usize,
    /// Number of inputs.
    pub cols: usize,
    /// Codes in -127..=127, row by row.
    pub codes: Vec<i8>,
    /// The largest magnitude of each row: a weight is `code * absmax / 127`.
    pub absmax: Vec<f32>,
}

/// Quantizes a matrix.
pub fn quantize(weights: &Matrix) -> Int8Rows {
    let (rows, cols) = (weights.rows(), weights.cols());
    let mut codes = vec![0; rows * cols];
    let mut absmax = vec![0.0; rows];
    codes
        .par_chunks_mut(cols.max(1))
        .zip(weights.data().par_chunks(cols.max(1)))
        .zip(absmax.par_iter_mut())
        .for_each(|((codes, row), absmax)| {
            let half = |value: f32| f16::from_f32(value).to_f32();
            let largest = row.iter().fold(0.0f32, |max, &v| max.max(half(v).abs()));
            *absmax = largest;
            if largest > 0.0 {
                // torch divides a number by a tensor through the reciprocal.
                let scale = 1.0 / largest * 127.0;
                for (code, &value) in codes.iter_mut().zip(row) {
                    *code = (half(value) * scale).round_ties_even() as i8;
                }
            }
        });
    Int8Rows {
        rows,
        cols,
        codes,
        absmax,
    }
}

impl Int8Rows {
    /// The weights that the codes stand for.
    pub fn dequantize(&self) -> Matrix {
        let mut matrix = Matrix::zeros(self.rows, self.cols);
        matrix
            .data_mut()
            .par_chunks_mut(self.cols.max(1))
            .zip(self.codes.par_chunks(self.cols.max(1)))
            .zip(&self.absmax)
            .for_each(|((values, codes), &absmax)| {
                for (value, &code) in values.iter_mut().zip(codes) {
                    *value = f32::from(code) * absmax * STEP;
                }
            });
        matrix
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_weight_moves_at_most_half_a_step(
            values in prop::collection::vec(-3.0f32..3.0, 1..200),
        ) {
            let matrix = Matrix::new(1, values.len(), values.clone()).unwrap();
            let quantized = quantize(&matrix);
            let step = quantized.absmax[0] / 127.0;
            for (a, b) in values.iter().zip(quantized.dequantize().data()) {
                // Half a step, and what f16 took off before.
                prop_assert!((a - b).abs() <= 0.5 * step + a.abs() * 5e-4 + 1e-6);
            }
        }
    }

    #[test]
    fn a_row_of_zeros_stays_so() {
        let quantized = quantize(&Matrix::zeros(2, 5));
        assert_eq!(quantized.absmax, [0.0; 2]);
        assert_eq!(quantized.dequantize(), Matrix::zeros(2, 5));
    }
}
