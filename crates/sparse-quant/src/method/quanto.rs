//! Optimum-quanto's rounding: 8 bits with a scale per row, 4 bits with a scale and a shift per
//! group.
//!
//! Scales and shifts are what the library chooses; codes are rounded with the scale as it is
//! stored, in f32, where the library computes in the model's own type.

use half::{bf16, f16};
use rayon::prelude::*;
use sparse_checkpoint::Dtype;

use crate::Matrix;

/// A matrix as codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Quanto {
    /// Number of outputs.
    pub rows: usize,
    /// Number of inputs.
    pub cols: usize,
    /// Inputs of a group; it divides the number of inputs.
    pub group_size: usize,
    /// The type that scales are stored in and weights are computed in: F16 or BF16.
    pub dtype: Dtype,
    /// Codes with their scales.
    pub codes: Codes,
    /// One per row (8 bits) or group (4 bits).
    pub scales: Vec<f32>,
}

/// Codes by width.
#[derive(Clone, Debug, PartialEq)]
pub enum Codes {
    /// A weight is `scale * code`.
    Int8(Vec<i8>),
    /// A weight is `scale * code - shift`.
    Int4 {
        /// 0 to 15, row by row.
        codes: Vec<u8>,
        /// One per group.
        shifts: Vec<f32>,
    },
}

/// The group size that the library uses for a layer of this many inputs; `None` for whole rows.
pub fn group_size(cols: usize) -> Option<usize> {
    if cols <= 128 {
        return None;
    }
    [128, 96, 64, 32]
        .into_iter()
        .find(|&size| cols.is_multiple_of(size))
}

fn round(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_f32(value).to_f32(),
        _ => bf16::from_f32(value).to_f32(),
    }
}

/// A scale that can be stored and divided by.
fn positive(dtype: Dtype, scale: f32) -> f32 {
    match round(dtype, scale) {
        scale if scale > 0.0 => scale,
        _ => round(dtype, 6e-8),
    }
}

/// Quantizes a matrix to 8 bits.
pub fn quantize8(weights: &Matrix, dtype: Dtype) -> Quanto {
    let cols = weights.cols().max(1);
    let rows: Vec<(Vec<i8>, f32)> = weights
        .data()
        .par_chunks(cols)
        .map(|row| {
            let largest = row.iter().fold(0.0f32, |max, v| max.max(v.abs()));
            let scale = positive(dtype, largest / 127.0);
            let code = |&v: &f32| (v / scale).round_ties_even().clamp(-128.0, 127.0) as i8;
            (row.iter().map(code).collect(), scale)
        })
        .collect();
    Quanto {
        rows: weights.rows(),
        cols: weights.cols(),
        group_size: weights.cols(),
        dtype,
        codes: Codes::Int8(rows.iter().flat_map(|(codes, _)| codes).copied().collect()),
        scales: rows.iter().map(|row| row.1).collect(),
    }
}

/// Quantizes a matrix to 4 bits in groups that [`group_size`] gives.
pub fn quantize4(weights: &Matrix, dtype: Dtype) -> Quanto {
    let cols = weights.cols().max(1);
    let size = group_size(cols).unwrap_or(cols);
    let groups: Vec<(Vec<u8>, f32, f32)> = weights
        .data()
        .par_chunks(size)
        .map(|group| {
            let low = group.iter().copied().fold(f32::INFINITY, f32::min);
            let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let scale = positive(dtype, (high - low) / 15.0);
            let shift = round(dtype, -low);
            let code = |&v: &f32| ((v + shift) / scale).round_ties_even().clamp(0.0, 15.0) as u8;
            (group.iter().map(code).collect(), scale, shift)
        })
        .collect();
    Quanto {
        rows: weights.rows(),
        cols: weights.cols(),
        group_size: size,
        dtype,
        codes: Codes::Int4 {
            codes: groups
                .iter()
                .flat_map(|(codes, ..)| codes)
                .copied()
                .collect(),
            shifts: groups.iter().map(|group| group.2).collect(),
        },
        scales: groups.iter().map(|group| group.1).collect(),
    }
}

impl Quanto {
    /// The weights that the codes stand for: computed in the stored type, as the library does.
    pub fn dequantize(&self) -> Matrix {
        let mut matrix = Matrix::zeros(self.rows, self.cols);
        let size = self.group_size.max(1);
        let groups = matrix.data_mut().par_chunks_mut(size).zip(&self.scales);
        match &self.codes {
            Codes::Int8(codes) => {
                groups
                    .zip(codes.par_chunks(size))
                    .for_each(|((out, &scale), codes)| {
                        for (out, &code) in out.iter_mut().zip(codes) {
                            *out = round(self.dtype, scale * f32::from(code));
                        }
                    })
            }
            Codes::Int4 { codes, shifts } => groups
                .zip(codes.par_chunks(size))
                .zip(shifts)
                .for_each(|(((out, &scale), codes), &shift)| {
                    for (out, &code) in out.iter_mut().zip(codes) {
                        let scaled = round(self.dtype, scale * f32::from(code));
                        *out = round(self.dtype, scaled - shift);
                    }
                }),
        }
        matrix
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_are_those_of_the_library() {
        assert_eq!(group_size(128), None);
        assert_eq!(group_size(256), Some(128));
        assert_eq!(group_size(1000), None);
        assert_eq!(group_size(288), Some(96));
        assert_eq!(group_size(160), Some(32));
    }

    proptest! {
        #[test]
        fn weights_stay_within_a_step(values in prop::collection::vec(-2.0f32..2.0, 256)) {
            let matrix = Matrix::new(1, 256, values.clone()).unwrap();
            for made in [quantize8(&matrix, Dtype::F16), quantize4(&matrix, Dtype::BF16)] {
                let back = made.dequantize();
                for (at, (a, b)) in values.iter().zip(back.data()).enumerate() {
                    // The stored type's own rounding comes on top: bf16 keeps 8 bits.
                    let slack = made.scales[at / made.group_size] + 0.03;
                    prop_assert!((a - b).abs() <= slack, "{a} {b}");
                }
            }
        }
    }
}
