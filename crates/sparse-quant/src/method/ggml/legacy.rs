//! Blocks of 32 weights with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.

use super::search::{Candidates, symmetric, with_minimum};
use super::{half, put_half};

const BLOCK: usize = 32;

/// How many steps the weighted types try.
pub(super) const WEIGHTED: Candidates = Candidates {
    first: -0.9,
    step: 0.05,
    count: 36,
};

/// An importance times how much a number stands out of its row.
fn weigh(row: &[f32], importance: &[f32], variance: f32, at: usize, weights: &mut [f32; BLOCK]) {
    let inputs = row[at..].iter().zip(&importance[at..]);
    for (weight, (&x, &q)) in weights.iter_mut().zip(inputs) {
        *weight = q * (variance + x * x).sqrt();
    }
}

fn mean_square(row: &[f32]) -> f32 {
    let mut sum = 0.0;
    for x in row {
        sum += x * x;
    }
    sum / row.len() as f32
}

/// The number of largest magnitude, with its sign; of several the first.
fn extreme(x: &[f32]) -> f32 {
    let largest = largest(x);
    x.iter()
        .copied()
        .find(|value| value.abs() == largest)
        .unwrap_or(0.0)
}

/// The largest magnitude, of many numbers at a time.
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (chunks, rest) = x.as_chunks::<8>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *lane < value.abs() {
                value.abs()
            } else {
                *lane
            };
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(
        0.0,
        |max, value| if max < value.abs() { value.abs() } else { max },
    )
}

fn inverse(scale: f32) -> f32 {
    if scale != 0.0 { 1.0 / scale } else { 0.0 }
}

/// What a C cast to a signed byte and a bound make of a code.
fn truncate(value: f32, largest: u8) -> u8 {
    // The way over 32 bits is the one that the processor has for four at a time.
    ((value as i32).clamp(-128, 127) as u8).min(largest)
}

/// To nearest, halves away from zero, as a signed byte: `round` without a call.
fn rounded(value: f32) -> i8 {
    let whole = value as i32 as f32;
    let rest = value - whole;
    let up = if rest >= 0.5 { 1.0 } else { 0.0 };
    let down = if rest <= -0.5 { 1.0 } else { 0.0 };
    ((whole + up - down) as i32).clamp(-128, 127) as i8
}

/// Blocks of a row with their bytes.
fn blocks<'a>(
    row: &'a [f32],
    out: &'a mut [u8],
    size: usize,
) -> impl Iterator<Item = (usize, &'a [f32], &'a mut [u8])> {
    let pairs = row.chunks_exact(BLOCK).zip(out.chunks_exact_mut(size));
    pairs.enumerate().map(|(at, (x, out))| (at * BLOCK, x, out))
}

pub(super) fn q4_0(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let variance = importance.map_or(0.0, |_| mean_square(row));
    let mut weights = [0.0; BLOCK];
    let mut codes = [0; BLOCK];
    for (at, x, out) in blocks(row, out, 18) {
        let scale = match importance {
            Some(importance) => {
                weigh(row, importance, variance, at, &mut weights);
                symmetric(8, x, &mut codes, Some(&weights))
            }
            None => {
                let scale = extreme(x) / -8.0;
                let inverse = inverse(scale);
                for (code, &x) in codes.iter_mut().zip(x) {
                    *code = truncate(x * inverse + 8.5, 15);
                }
                scale
            }
        };
        put_half(out, 0, scale);
        nibbles(&codes, &mut out[2..]);
    }
}

pub(super) fn q5_0(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let variance = importance.map_or(0.0, |_| mean_square(row));
    let mut weights = [0.0; BLOCK];
    let mut codes = [0; BLOCK];
    for (at, x, out) in blocks(row, out, 22) {
        let scale = match importance {
            Some(importance) => {
                weigh(row, importance, variance, at, &mut weights);
                symmetric(16, x, &mut codes, Some(&weights))
            }
            None => {
                let scale = extreme(x) / -16.0;
                let inverse = inverse(scale);
                for (code, &x) in codes.iter_mut().zip(x) {
                    *code = truncate(x * inverse + 16.5, 31);
                }
                scale
            }
        };
        put_half(out, 0, scale);
        fifth_bits(&codes, &mut out[2..]);
    }
}

/// Q4_1 and Q5_1: a scale and a minimum.
pub(super) fn with_offset(row: &[f32], importance: Option<&[f32]>, out: &mut [u8], bits: u32) {
    let variance = importance.map_or(0.0, |_| mean_square(row));
    let mut weights = [0.0; BLOCK];
    let mut codes = [0; BLOCK];
    let largest = (1u8 << bits) - 1;
    for (at, x, out) in blocks(row, out, 4 + BLOCK * bits as usize / 8) {
        let (scale, min) = match importance {
            Some(importance) => {
                weigh(row, importance, variance, at, &mut weights);
                let (scale, below) =
                    with_minimum(i32::from(largest), x, &weights, &mut codes, WEIGHTED);
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
                    *code = (((x - min) * inverse + 0.5) as u8).min(largest);
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

pub(super) fn q8_0(row: &[f32], out: &mut [u8]) {
    for (_, x, out) in blocks(row, out, 34) {
        let scale = largest(x) / 127.0;
        let inverse = inverse(scale);
        put_half(out, 0, scale);
        for (out, &x) in out[2..].iter_mut().zip(x) {
            *out = rounded(x * inverse) as u8;
        }
    }
}

/// The first 16 codes in low nibbles, the others in high ones.
fn nibbles(codes: &[u8; BLOCK], out: &mut [u8]) {
    let (low, high) = codes.split_at(BLOCK / 2);
    for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
        *out = low & 15 | (high & 15) << 4;
    }
}

/// A word of fifth bits, then nibbles.
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
    fn casts_and_rounding_are_those_of_single_numbers() {
        let around = |middle: f32| {
            let bits = middle.to_bits();
            [bits.wrapping_sub(1), bits, bits + 1].map(f32::from_bits)
        };
        let whole = (-300..300).flat_map(|i| around(i as f32 / 2.0));
        let odd = [f32::NAN, f32::INFINITY, -f32::INFINITY, 3e9, -3e9, -0.0];
        for value in whole.chain(odd) {
            assert_eq!(rounded(value), value.round() as i8, "{value}");
            assert_eq!(truncate(value, 15), (value as i8 as u8).min(15), "{value}");
        }
    }

    #[test]
    fn the_first_of_the_largest_numbers_gives_the_sign() {
        let mut x = [0.0; 32];
        assert_eq!(extreme(&x), 0.0);
        (x[3], x[20], x[31]) = (-2.0, 2.0, 1.0);
        assert_eq!(extreme(&x), -2.0);
        x[31] = 2.5;
        assert_eq!(extreme(&x), 2.5);
    }
}
