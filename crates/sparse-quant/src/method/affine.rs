//! Codes with a scale and a zero point per group: what RTN, GPTQ and AWQ make.

use half::{bf16, f16};
use rayon::prelude::*;

use super::round::nearest;
use crate::Matrix;

/// A matrix as codes: a weight is `scale * (code - zero)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Number of outputs.
    pub rows: usize,
    /// Number of inputs.
    pub cols: usize,
    /// Bits of a code, 2 to 8.
    pub bits: u32,
    /// Inputs of a group; the last one of a row may have fewer.
    pub group_size: usize,
    /// Codes, row by row.
    pub codes: Vec<u8>,
    /// One per row and group, row by row.
    pub scales: Vec<f32>,
    /// The code that stands for zero, one per row and group.
    pub zeros: Vec<u8>,
    /// The group of each input where groups are not runs of inputs: GPTQ's act-order.
    pub group_of: Option<Vec<u32>>,
}

/// What codes and scales are to be like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffineSpec {
    /// Bits of a code, 2 to 8.
    pub bits: u32,
    /// Inputs of a group; `usize::MAX` or any size beyond the width stands for a whole row.
    pub group_size: usize,
    /// Whether zero is always the middle code.
    pub symmetric: bool,
    /// The type that scales are stored in.
    pub scales: ScaleType,
    /// The least zero point: 1 where a format cannot store 0.
    pub least_zero: u8,
    /// Whether to look for the scale that leaves the least squared error, rather than to cover
    /// the whole range.
    pub search: bool,
}

/// The type that scales are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleType {
    /// Half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl ScaleType {
    /// The nearest scale that can be stored and is greater than zero.
    fn round(self, scale: f32) -> f32 {
        match self {
            ScaleType::F16 => f16::from_f32(scale.min(65504.0))
                .max(f16::from_bits(1))
                .to_f32(),
            ScaleType::Bf16 => bf16::from_f32(scale).max(bf16::from_f32(1e-30)).to_f32(),
        }
    }
}

impl AffineSpec {
    /// The largest code.
    #[inline(always)]
    pub fn largest(&self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// Inputs of a group in rows of `cols`.
    pub fn group_in(&self, cols: usize) -> usize {
        self.group_size.min(cols).max(1)
    }

    /// Scale and zero point for a group; `importance` weighs the errors of its inputs, where they
    /// are known to differ.
    #[inline(always)]
    pub fn parameters(&self, values: &[f32], importance: Option<&[f32]>) -> (f32, u8) {
        let (mut low, mut high) = values.iter().fold((0.0f32, 0.0f32), |(low, high), &v| {
            (low.min(v), high.max(v))
        });
        if self.symmetric {
            high = high.max(-low);
            low = -high;
        }
        if low == high {
            (low, high) = (-1.0, 1.0);
        }
        let mut best = self.fit(low, high);
        if !self.search {
            return best;
        }
        let mut least = self.error(values, importance, best, f32::INFINITY);
        for step in 1..=60 {
            let shrink = 1.0 - step as f32 / 100.0;
            let candidate = self.fit(low * shrink, high * shrink);
            let error = self.error(values, importance, candidate, least);
            if error < least {
                (best, least) = (candidate, error);
            }
        }
        best
    }

    #[inline(always)]
    fn fit(&self, low: f32, high: f32) -> (f32, u8) {
        let scale = self.scales.round((high - low) / self.largest());
        let zero = if self.symmetric {
            (1u32 << (self.bits - 1)) as f32
        } else {
            (-low / scale).round_ties_even()
        };
        (
            scale,
            zero.clamp(f32::from(self.least_zero), self.largest()) as u8,
        )
    }

    /// The weighted squared error of a group, or more than `limit` once it is that. In eight lanes so
    /// that it vectorizes; always in the same order.
    #[inline(always)]
    fn error(
        &self,
        values: &[f32],
        weights: Option<&[f32]>,
        (scale, zero): (f32, u8),
        limit: f32,
    ) -> f32 {
        let (zero, largest) = (f32::from(zero), self.largest());
        let square = |value: f32| {
            let off = value - scale * (steps(value, scale, zero, largest) - zero);
            off * off
        };
        let mut sum = 0.0;
        for (at, values) in values.chunks(32).enumerate() {
            let (eights, rest) = values.as_chunks::<8>();
            let mut lanes = [0.0f32; 8];
            match weights.map(|weights| &weights[at * 32..][..values.len()]) {
                None => {
                    for eight in eights {
                        for (lane, &value) in lanes.iter_mut().zip(eight) {
                            *lane += square(value);
                        }
                    }
                    sum += rest.iter().map(|&value| square(value)).sum::<f32>();
                }
                Some(weights) => {
                    let (weight_eights, weight_rest) = weights.as_chunks::<8>();
                    for (eight, weights) in eights.iter().zip(weight_eights) {
                        for ((lane, &value), weight) in lanes.iter_mut().zip(eight).zip(weights) {
                            *lane += square(value) * weight;
                        }
                    }
                    let rest = rest.iter().zip(weight_rest);
                    sum += rest
                        .map(|(&value, weight)| square(value) * weight)
                        .sum::<f32>();
                }
            }
            sum += lanes.iter().sum::<f32>();
            if sum >= limit {
                break;
            }
        }
        sum
    }

    /// The code nearest to a value.
    #[inline(always)]
    pub fn code(&self, value: f32, scale: f32, zero: u8) -> u8 {
        steps(value, scale, f32::from(zero), self.largest()) as u8
    }
}

/// The code nearest to a value, as a number.
#[inline(always)]
fn steps(value: f32, scale: f32, zero: f32, largest: f32) -> f32 {
    const FAR: f32 = 1024.0; // beyond any code
    let steps = nearest((value / scale).clamp(-FAR, FAR));
    (steps + zero).clamp(0.0, largest)
}

impl Affine {
    /// Room for a matrix of this shape, in runs of inputs.
    pub(crate) fn blank(rows: usize, cols: usize, spec: &AffineSpec) -> Affine {
        let group_size = spec.group_in(cols);
        let groups = cols.div_ceil(group_size);
        Affine {
            rows,
            cols,
            bits: spec.bits,
            group_size,
            codes: vec![0; rows * cols],
            scales: vec![0.0; rows * groups],
            zeros: vec![0; rows * groups],
            group_of: None,
        }
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.cols.div_ceil(self.group_size.max(1))
    }

    /// The group of an input.
    #[inline]
    pub fn group(&self, col: usize) -> usize {
        match &self.group_of {
            Some(groups) => groups[col] as usize,
            None => col / self.group_size,
        }
    }

    /// The weights that the codes stand for.
    pub fn dequantize(&self) -> Matrix {
        let mut matrix = Matrix::zeros(self.rows, self.cols);
        let (cols, groups) = (self.cols.max(1), self.groups().max(1));
        matrix
            .data_mut()
            .par_chunks_mut(cols)
            .zip(self.codes.par_chunks(cols))
            .zip(self.scales.par_chunks(groups))
            .zip(self.zeros.par_chunks(groups))
            .for_each(|(((values, codes), scales), zeros)| {
                for (col, (value, &code)) in values.iter_mut().zip(codes).enumerate() {
                    let group = self.group(col);
                    *value = scales[group] * (f32::from(code) - f32::from(zeros[group]));
                }
            });
        matrix
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::method::rtn;

    pub(crate) fn spec(bits: u32, group_size: usize, symmetric: bool) -> AffineSpec {
        AffineSpec {
            bits,
            group_size,
            symmetric,
            scales: ScaleType::F16,
            least_zero: 0,
            search: false,
        }
    }

    pub(crate) fn any_affine() -> impl Strategy<Value = Affine> {
        // Shapes that every format takes: multiples of 32 inputs and outputs.
        (
            1usize..4,
            1usize..4,
            0usize..4,
            prop_oneof![Just(32usize), Just(64), Just(usize::MAX)],
        )
            .prop_flat_map(|(n, k, bits, group)| {
                let bits = [2, 3, 4, 8][bits];
                let values = prop::collection::vec(-1.0f32..1.0, n * 32 * k * 32);
                (Just((n * 32, k * 32, bits, group)), values, any::<bool>())
            })
            .prop_map(|((rows, cols, bits, group), values, symmetric)| {
                let matrix = Matrix::new(rows, cols, values).unwrap();
                let spec = AffineSpec {
                    least_zero: 1,
                    ..spec(bits, group, symmetric)
                };
                rtn::quantize(&matrix, &spec)
            })
    }

    #[test]
    fn searching_never_leaves_a_greater_error() {
        let values: Vec<f32> = (0..128)
            .map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).powi(3))
            .collect();
        for symmetric in [false, true] {
            let plain = spec(3, 128, symmetric);
            let searching = AffineSpec {
                search: true,
                ..plain
            };
            let error = |parameters| plain.error(&values, None, parameters, f32::INFINITY);
            let (a, b) = (
                plain.parameters(&values, None),
                searching.parameters(&values, None),
            );
            assert!(error(b) < 0.95 * error(a), "{symmetric}");
        }
    }

    #[test]
    fn zeros_and_tiny_values_have_a_scale() {
        for values in [[0.0; 4], [1e-30, 0.0, -1e-30, 0.0]] {
            let (scale, zero) = spec(4, 4, true).parameters(&values, None);
            assert!(scale > 0.0 && scale.is_finite());
            assert_eq!(zero, 8);
        }
    }
}
