//! bitsandbytes' 4-bit NormalFloat: a code per weight into a fixed table, a scale per block.
//!
//! Equal to bitsandbytes 0.50 on a CPU, code for code; only the mean that double quantization
//! takes off the scales can differ from it in the last place, since torch's order of summation
//! depends on the processor.

use rayon::prelude::*;

use crate::Matrix;
use crate::method::dynamic_map::{DYNAMIC_MAP, nearest_dynamic};

/// Quantiles of the normal distribution, scaled to [-1, 1].
pub const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Weights that share a scale, counted row by row across the whole matrix.
pub const BLOCK: usize = 64;
/// Scales that share a scale under double quantization.
pub const NESTED_BLOCK: usize = 256;

/// A matrix as NF4 codes.
#[derive(Clone, Debug, PartialEq)]
pub struct Nf4 {
    /// Number of outputs.
    pub rows: usize,
    /// Number of inputs.
    pub cols: usize,
    /// Two codes per byte, the first in the high nibble, row by row.
    pub packed: Vec<u8>,
    /// The largest magnitude of each block of [`BLOCK`].
    pub absmax: Absmax,
}

/// Block scales, as they are stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Absmax {
    /// In full.
    Plain(Vec<f32>),
    /// Quantized themselves: `offset + DYNAMIC_MAP[code] * scale of its block of 256`.
    Nested {
        /// One per block of weights.
        codes: Vec<u8>,
        /// One per [`NESTED_BLOCK`] codes.
        scales: Vec<f32>,
        /// Taken off before quantizing: the mean.
        offset: f32,
    },
}

/// Quantizes a matrix; `nested` quantizes the scales as well (0.37 bits per weight less).
pub fn quantize(weights: &Matrix, nested: bool) -> Nf4 {
    let values = weights.data();
    let mut absmax = vec![0.0; values.len().div_ceil(BLOCK)];
    let mut packed = vec![0; values.len().div_ceil(2)];
    packed
        .par_chunks_mut(BLOCK / 2)
        .zip(values.par_chunks(BLOCK))
        .zip(absmax.par_iter_mut())
        .for_each(|((packed, values), absmax)| *absmax = quantize_block(values, packed));
    let absmax = if nested {
        nest(&absmax)
    } else {
        Absmax::Plain(absmax)
    };
    Nf4 {
        rows: weights.rows(),
        cols: weights.cols(),
        packed,
        absmax,
    }
}

/// Codes of one block into `packed`; returns its largest magnitude.
fn quantize_block(values: &[f32], packed: &mut [u8]) -> f32 {
    let absmax = values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    let floor = absmax.max(1e-38);
    let inverse = 1.0 / floor;
    // The library multiplies in whole blocks and divides in the last, shorter one.
    let whole = values.len() == BLOCK;
    let code = |value: f32| {
        nearest(if whole {
            value * inverse
        } else {
            value / floor
        })
    };
    for (byte, pair) in packed.iter_mut().zip(values.chunks(2)) {
        let second = pair.get(1).map_or(7, |&value| code(value));
        *byte = code(pair[0]) << 4 | second;
    }
    if whole { absmax } else { floor }
}

/// The nearest entry of [`NF4`]; half-way, the lower.
fn nearest(value: f32) -> u8 {
    let mut code = 0;
    for pair in NF4.windows(2) {
        code += u8::from(value > (pair[0] + pair[1]) / 2.0);
    }
    code
}

fn nest(absmax: &[f32]) -> Absmax {
    let sum: f64 = absmax.iter().map(|&a| f64::from(a)).sum();
    let offset = (sum / absmax.len().max(1) as f64) as f32;
    let mut codes = Vec::with_capacity(absmax.len());
    let mut scales = Vec::with_capacity(absmax.len().div_ceil(NESTED_BLOCK));
    for block in absmax.chunks(NESTED_BLOCK) {
        let scale = block
            .iter()
            .fold(0.0f32, |max, a| max.max((a - offset).abs()));
        scales.push(scale);
        let inverse = 1.0 / scale;
        codes.extend(block.iter().map(|a| match scale {
            0.0 => 0,
            _ => nearest_dynamic((a - offset) * inverse),
        }));
    }
    Absmax::Nested {
        codes,
        scales,
        offset,
    }
}

impl Absmax {
    /// The scales in full.
    pub fn values(&self) -> Vec<f32> {
        match self {
            Absmax::Plain(values) => values.clone(),
            Absmax::Nested {
                codes,
                scales,
                offset,
            } => {
                let blocks = codes.chunks(NESTED_BLOCK).zip(scales);
                let values = blocks.flat_map(|(codes, scale)| {
                    codes
                        .iter()
                        .map(move |&code| DYNAMIC_MAP[usize::from(code)] * scale + offset)
                });
                values.collect()
            }
        }
    }
}

impl Nf4 {
    /// The weights that the codes stand for.
    pub fn dequantize(&self) -> Matrix {
        let mut matrix = Matrix::zeros(self.rows, self.cols);
        let absmax = self.absmax.values();
        matrix
            .data_mut()
            .par_chunks_mut(BLOCK)
            .zip(self.packed.par_chunks(BLOCK / 2))
            .zip(absmax)
            .for_each(|((values, packed), absmax)| {
                for (pair, byte) in values.chunks_mut(2).zip(packed) {
                    pair[0] = NF4[usize::from(byte >> 4)] * absmax;
                    if let Some(second) = pair.get_mut(1) {
                        *second = NF4[usize::from(byte & 15)] * absmax;
                    }
                }
            });
        matrix
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn table_entries_survive() {
        let values: Vec<f32> = NF4.iter().cycle().take(128).map(|v| v * 0.25).collect();
        let matrix = Matrix::new(2, 64, values).unwrap();
        let quantized = quantize(&matrix, false);
        assert_eq!(quantized.absmax, Absmax::Plain(vec![0.25; 2]));
        assert_eq!(
            quantized.packed[..8],
            [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]
        );
        assert_eq!(quantized.dequantize(), matrix);
    }

    #[test]
    fn zeros_stay_zeros() {
        let quantized = quantize(&Matrix::zeros(3, 70), true);
        assert!(quantized.dequantize().data().iter().all(|&v| v == 0.0));
    }

    proptest! {
        #[test]
        fn every_weight_moves_at_most_half_the_widest_gap(
            values in prop::collection::vec(-3.0f32..3.0, 1..400),
            nested: bool,
        ) {
            let matrix = Matrix::new(1, values.len(), values.clone()).unwrap();
            let quantized = quantize(&matrix, nested);
            let absmax = quantized.absmax.values();
            let back = quantized.dequantize();
            let exact: Vec<f32> = values
                .chunks(BLOCK)
                .map(|block| block.iter().fold(0.0, |most: f32, value| most.max(value.abs())))
                .collect();
            // Nested scales are off by half a gap of their own table, 0.9 / 64 at its widest, of
            // the largest difference from their mean.
            let mean = exact.iter().sum::<f32>() / exact.len() as f32;
            let spread = exact.iter().fold(0.0, |most: f32, one| most.max((one - mean).abs()));
            for (exact, found) in exact.iter().zip(&absmax) {
                let slack = if nested { 0.0075 * spread } else { 0.0 };
                prop_assert!((exact - found).abs() <= slack + 1e-6, "{exact} {found} {spread}");
            }
            // The widest gap of the table is 0.304.
            for (at, (a, b)) in values.iter().zip(back.data()).enumerate() {
                let (exact, found) = (exact[at / BLOCK], absmax[at / BLOCK]);
                let most = 0.1525 * exact + (exact - found).abs();
                prop_assert!((a - b).abs() <= most + 1e-6, "{a} {b} {exact} {found}");
            }
        }
    }
}
