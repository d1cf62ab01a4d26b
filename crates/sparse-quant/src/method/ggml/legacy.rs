//! Blocks of 32 weights with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

use super::search::{Candidates, refined, with_minimum};
use super::{half, put_half};
use crate::method::round::{floor_integer, nearest_away_integer};

const BLOCK: usize = 32;

/// How many steps the weighted types try.
pub(super) const WEIGHTED: Candidates = Candidates {
    first: -0.9,
    step: 0.05,
    count: 36,
};

/// An importance times how much a number stands out of its row.
#[inline(always)]
fn weigh(row: &[f32], importance: &[f32], variance: f32, at: usize, weights: &mut [f32; BLOCK]) {
    let inputs = row[at..].iter().zip(&importance[at..]);
    for (weight, (&x, &q)) in weights.iter_mut().zip(inputs) {
        *weight = q * (variance + x * x).sqrt();
    }
}

#[inline(always)]
fn mean_square(row: &[f32]) -> f32 {
    let mut sum = 0.0;
    for x in row {
        sum += x * x;
    }
    sum / row.len() as f32
}

/// The least and the greatest number, of many at a time; neither is on its side of zero if no
/// number is.
#[inline(always)]
fn range(x: &[f32]) -> (f32, f32) {
    let lesser = |a: f32, b: f32| if b < a { b } else { a };
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let (mut least, mut greatest) = ([0.0f32; 8], [0.0f32; 8]);
    let (chunks, rest) = x.as_chunks::<8>();
    for chunk in chunks {
        for at in 0..8 {
            least[at] = lesser(least[at], chunk[at]);
            greatest[at] = greater(greatest[at], chunk[at]);
        }
    }
    let all = |lanes: [f32; 8]| lanes.into_iter().chain(rest.iter().copied());
    (
        all(least).fold(0.0, lesser),
        all(greatest).fold(0.0, greater),
    )
}

/// The number of largest magnitude, with its sign; of several the first.
#[inline(always)]
fn extreme(x: &[f32]) -> f32 {
    let (least, greatest) = range(x);
    if -least > greatest {
        least
    } else if greatest > -least {
        greatest
    } else {
        // Zeros have no sign here.
        let mut all = x.iter().copied();
        all.find(|value| *value != 0.0 && value.abs() == greatest)
            .unwrap_or(0.0)
    }
}

/// One through a scale, or none where the scale is too small to be stored anyway.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// A code that is not negative, cut off.
#[inline(always)]
fn cut(value: f32, largest: i32) -> u8 {
    floor_integer(value).min(largest) as u8
}

/// Blocks of a row with their bytes.
#[inline(always)]
fn blocks<'a>(
    row: &'a [f32],
    out: &'a mut [u8],
    size: usize,
) -> impl Iterator<Item = (usize, &'a [f32], &'a mut [u8])> {
    let pairs = row.chunks_exact(BLOCK).zip(out.chunks_exact_mut(size));
    pairs.enumerate().map(|(at, (x, out))| (at * BLOCK, x, out))
}

#[inline(always)]
pub(super) fn q4_0(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let variance = importance.map_or(0.0, |_| mean_square(row));
    let mut weights = [0.0; BLOCK];
    let mut codes = [0; BLOCK];
    for (at, x, out) in blocks(row, out, 18) {
        let scale = match importance {
            Some(importance) => {
                weigh(row, importance, variance, at, &mut weights);
                refined(8, x, &mut codes, &weights)
            }
            None => {
                let scale = extreme(x) / -8.0;
                let inverse = inverse(scale);
                for (code, &x) in codes.iter_mut().zip(x) {
                    *code = cut(x * inverse + 8.5, 15);
                }
                scale
            }
        };
        put_half(out, 0, scale);
        nibbles(&codes, &mut out[2..]);
    }
}

#[inline(always)]
pub(super) fn q5_0(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let variance = importance.map_or(0.0, |_| mean_square(row));
    let mut weights = [0.0; BLOCK];
    let mut codes = [0; BLOCK];
    for (at, x, out) in blocks(row, out, 22) {
        let scale = match importance {
            Some(importance) => {
                weigh(row, importance, variance, at, &mut weights);
                refined(16, x, &mut codes, &weights)
            }
            None => {
                let scale = extreme(x) / -16.0;
                let inverse = inverse(scale);
                for (code, &x) in codes.iter_mut().zip(x) {
                    *code = cut(x * inverse + 16.5, 31);
                }
                scale
            }
        };
        put_half(out, 0, scale);
        fifth_bits(&codes, &mut out[2..]);
    }
}

/// Q4_1 and Q5_1: a scale and a minimum.
#[inline(always)]
pub(super) fn with_offset(row: &[f32], importance: Option<&[f32]>, out: &mut [u8], bits: u32) {
    let variance = importance.map_or(0.0, |_| mean_square(row));
    let mut weights = [0.0; BLOCK];
    let mut codes = [0; BLOCK];
    let largest = (1u8 << bits) - 1;
    for (at, x, out) in blocks(row, out, 4 + BLOCK * bits as usize / 8) {
        let (scale, min) = match importance {
            Some(importance) => {
                weigh(row, importance, variance, at, &mut weights);
                let (x, weights) = (x.as_chunks::<1>().0, weights.as_chunks::<1>().0);
                let codes = codes.as_chunks_mut::<1>().0;
                let ([scale], [below]) =
                    with_minimum(i32::from(largest), x, weights, codes, WEIGHTED);
                (scale, -below)
            }
            None => {
                let min = x
                    .iter()
                    .copied()
                    .fold(f32::MAX, |a, b| if b < a { b } else { a });
                let max = x
                    .iter()
                    .copied()
                    .fold(-f32::MAX, |a, b| if b > a { b } else { a });
                let scale = (max - min) / f32::from(largest);
                let inverse = inverse(scale);
                for (code, &x) in codes.iter_mut().zip(x) {
                    *code = cut((x - min) * inverse + 0.5, i32::from(largest));
                }
                (scale, min)
            }
        };
        put_half(out, 0, scale);
        put_half(out, 2, min);
        match bits {
            4 => nibbles(&codes, &mut out[4..]),
            _ => fifth_bits(&codes, &mut out[4..]),
        }
    }
}

#[inline(always)]
pub(super) fn q8_0(row: &[f32], out: &mut [u8]) {
    for (_, x, out) in blocks(row, out, 34) {
        let (least, greatest) = range(x);
        let scale = greatest.max(-least) / 127.0;
        let inverse = inverse(scale);
        put_half(out, 0, scale);
        for (out, &x) in out[2..].iter_mut().zip(x) {
            *out = nearest_away_integer(x * inverse) as u8;
        }
    }
}

/// The first 16 codes in low nibbles, the others in high ones.
#[inline(always)]
fn nibbles(codes: &[u8; BLOCK], out: &mut [u8]) {
    let (low, high) = codes.split_at(BLOCK / 2);
    for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
        *out = low & 15 | (high & 15) << 4;
    }
}

/// A word of fifth bits, then nibbles.
#[inline(always)]
fn fifth_bits(codes: &[u8; BLOCK], out: &mut [u8]) {
    let bits = codes.iter().enumerate();
    let word = bits.fold(0u32, |word, (at, &code)| {
        word | u32::from(code >> 4 & 1) << at
    });
    out[..4].copy_from_slice(&word.to_le_bytes());
    nibbles(codes, &mut out[4..]);
}

/// Codes of 0 to 15, which end a block; in Q4_0, 8 stands for zero.
pub(super) fn q4_codes(block: &[u8], codes: &mut [i8]) {
    let (low, high) = codes.split_at_mut(BLOCK / 2);
    let bytes = &block[block.len() - BLOCK / 2..];
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = (byte & 15) as i8;
        *high = (byte >> 4) as i8;
    }
}

pub(super) fn from_q4_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let mut codes = [0; BLOCK];
    q4_codes(block, &mut codes);
    for (out, code) in out.iter_mut().zip(codes) {
        *out = (f32::from(code) - 8.0) * scale;
    }
}

pub(super) fn from_q4_1(block: &[u8], out: &mut [f32]) {
    let (scale, below) = (half(block, 0), half(block, 2));
    let mut codes = [0; BLOCK];
    q4_codes(block, &mut codes);
    for (out, code) in out.iter_mut().zip(codes) {
        *out = f32::from(code) * scale + below;
    }
}

/// Codes of 0 to 31; without a minimum, 16 stands for zero.
pub(super) fn q5_codes(block: &[u8], codes: &mut [i8], minimum: bool) {
    let bits = if minimum { 4 } else { 2 };
    let word = u32::from_le_bytes([
        block[bits],
        block[bits + 1],
        block[bits + 2],
        block[bits + 3],
    ]);
    for (at, code) in codes.iter_mut().enumerate() {
        let byte = block[bits + 4 + at % (BLOCK / 2)];
        let low = if at < BLOCK / 2 { byte & 15 } else { byte >> 4 };
        *code = (low | ((word >> at & 1) as u8) << 4) as i8;
    }
}

pub(super) fn from_q5(block: &[u8], out: &mut [f32], minimum: bool) {
    let scale = half(block, 0);
    let below = if minimum { half(block, 2) } else { 0.0 };
    let mut codes = [0; BLOCK];
    q5_codes(block, &mut codes, minimum);
    for (out, code) in out.iter_mut().zip(codes) {
        let code = f32::from(code);
        *out = if minimum {
            code * scale + below
        } else {
            (code - 16.0) * scale
        };
    }
}

pub(super) fn from_q8_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    for (out, &code) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(code as i8) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_largest_numbers_gives_the_sign() {
        let mut x = [-0.0; 32];
        assert!(extreme(&x).is_sign_positive());
        (x[3], x[20], x[31]) = (-2.0, 2.0, 1.0);
        assert_eq!(extreme(&x), -2.0);
        x[31] = 2.5;
        assert_eq!(extreme(&x), 2.5);
    }
}
