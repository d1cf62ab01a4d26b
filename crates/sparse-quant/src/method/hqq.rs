//! Half-quadratic quantization: the zero points are fitted so that most weights come out right and
//! a few outliers may be far off (an l_p norm with p = 0.7). No calibration.
//!
//! The steps are those of the hqq library 0.2.8 on a CPU (groups along the inputs); sums are taken
//! in another order than torch does, so zero points can differ in the last place.

use half::f16;
use rayon::prelude::*;

use crate::Matrix;

/// A matrix as codes: a weight is `(code - zero) * scale`, in half precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Hqq {
    /// Number of outputs.
    pub rows: usize,
    /// Number of inputs.
    pub cols: usize,
    /// Bits of a code, 2 to 4 or 8.
    pub bits: u32,
    /// Weights of a group, counted row by row across the whole matrix.
    pub group_size: usize,
    /// Codes, row by row.
    pub codes: Vec<u8>,
    /// One per group.
    pub scales: Vec<f16>,
    /// One per group; not whole numbers.
    pub zeros: Vec<f16>,
}

const STEPS: usize = 20;
/// The exponent of the norm, less one.
const POWER: f32 = 0.7 - 1.0;
const BETA: f32 = 10.0;

/// Quantizes a matrix whose weights are a multiple of `group_size` in number.
///
/// # Panics
/// If they are not.
pub fn quantize(weights: &Matrix, bits: u32, group_size: usize) -> Hqq {
    let values = weights.data();
    assert!(group_size > 0 && values.len().is_multiple_of(group_size));
    let largest = ((1u32 << bits) - 1) as f32;
    let (scales, mut zeros): (Vec<f32>, Vec<f32>) = values
        .par_chunks(group_size)
        .map(|group| {
            let low = group.iter().copied().fold(f32::INFINITY, f32::min);
            let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let range = high - low;
            // torch divides a number by a tensor through the reciprocal.
            // Groups that hardly vary keep their scale; half precision bounds the others.
            let scale = if range <= 1e-4 {
                1.0
            } else {
                (1.0 / range * largest).min(2e4)
            };
            (scale, -low * scale)
        })
        .unzip();
    let mut least = f64::INFINITY;
    for _ in 0..STEPS {
        let (next, errors): (Vec<f32>, Vec<f64>) = values
            .par_chunks(group_size)
            .zip(&scales)
            .zip(&zeros)
            .map(|((group, &scale), &zero)| step(group, scale, zero, largest))
            .unzip();
        zeros = next;
        let error = errors.iter().sum::<f64>();
        if error >= least {
            break;
        }
        least = error;
    }
    let mut codes = vec![0; values.len()];
    codes
        .par_chunks_mut(group_size)
        .zip(values.par_chunks(group_size))
        .zip(&scales)
        .zip(&zeros)
        .for_each(|(((codes, group), &scale), &zero)| {
            for (code, &value) in codes.iter_mut().zip(group) {
                *code = nearest(value, scale, zero, largest) as u8;
            }
        });
    Hqq {
        rows: weights.rows(),
        cols: weights.cols(),
        bits,
        group_size,
        codes,
        scales: scales
            .iter()
            .map(|&scale| f16::from_f32(1.0 / scale))
            .collect(),
        zeros: zeros.iter().map(|&zero| f16::from_f32(zero)).collect(),
    }
}

fn nearest(value: f32, scale: f32, zero: f32, largest: f32) -> f32 {
    (value * scale + zero).round_ties_even().clamp(0.0, largest)
}

/// The next zero point of a group, and the error that the present one leaves.
fn step(group: &[f32], scale: f32, zero: f32, largest: f32) -> (f32, f64) {
    let (mut sum, mut error) = (0.0, 0.0);
    for &value in group {
        let code = nearest(value, scale, zero, largest);
        let off = value - (code - zero) / scale;
        error += f64::from(off.abs());
        // What shrinking leaves of the error is taken to be an outlier's, and forgiven.
        let size = off.abs();
        let left = (size - size.powf(POWER) / BETA).max(0.0);
        let forgiven = if left > 0.0 { left.copysign(off) } else { 0.0 };
        sum += code - (value - forgiven) * scale;
    }
    (sum / group.len() as f32, error)
}

impl Hqq {
    /// The weights that the codes stand for: computed in half precision, as the library does.
    pub fn dequantize(&self) -> Matrix {
        let mut matrix = Matrix::zeros(self.rows, self.cols);
        matrix
            .data_mut()
            .par_chunks_mut(self.group_size)
            .zip(self.codes.par_chunks(self.group_size))
            .zip(&self.scales)
            .zip(&self.zeros)
            .for_each(|(((values, codes), scale), zero)| {
                let (scale, zero) = (scale.to_f32(), zero.to_f32());
                for (value, &code) in values.iter_mut().zip(codes) {
                    let above = f16::from_f32(f32::from(code) - zero).to_f32();
                    *value = f16::from_f32(above * scale).to_f32();
                }
            });
        matrix
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Many small weights and a few large ones, as layers have them.
    fn heavy_tailed() -> Matrix {
        let value = |i: usize| {
            let x = ((i * 7919) % 1009) as f32 / 504.5 - 1.0;
            x * x * x * x * x + 0.02 * x
        };
        Matrix::new(16, 64, (0..1024).map(value).collect()).unwrap()
    }

    #[test]
    fn fitting_zero_points_beats_covering_the_range() {
        let matrix = heavy_tailed();
        let norm = |back: &Matrix| -> f64 {
            let pairs = matrix.data().iter().zip(back.data());
            pairs.map(|(a, b)| f64::from((a - b).abs()).powf(0.7)).sum()
        };
        let fitted = quantize(&matrix, 3, 64);
        let mut plain = fitted.clone();
        for (group, values) in matrix.data().chunks(64).enumerate() {
            let low = values.iter().copied().fold(f32::INFINITY, f32::min);
            let scale = 1.0 / fitted.scales[group].to_f32();
            plain.zeros[group] = f16::from_f32(-low * scale);
            for (code, &value) in plain.codes[group * 64..].iter_mut().zip(values) {
                *code = nearest(value, scale, -low * scale, 7.0) as u8;
            }
        }
        assert!(norm(&fitted.dequantize()) < norm(&plain.dequantize()));
    }

    proptest! {
        #[test]
        fn codes_are_within_their_bits(
            values in prop::collection::vec(-2.0f32..2.0, 64),
            bits in prop_oneof![Just(2u32), Just(3), Just(4), Just(8)],
        ) {
            let matrix = Matrix::new(2, 32, values).unwrap();
            let made = quantize(&matrix, bits, 32);
            prop_assert!(made.codes.iter().all(|&code| u32::from(code) < 1 << bits));
            prop_assert!(made.dequantize().data().iter().all(|value| value.is_finite()));
        }
    }
}
