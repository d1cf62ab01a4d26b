//! Blocks of 256 weights in groups with scales that are codes themselves: Q4_K, Q5_K, Q6_K.

use super::legacy::WEIGHTED;
use super::search::{Candidates, positive, symmetric, with_minimum};
use super::{half, put_half};
use crate::method::round::nearest_integer;

const BLOCK: usize = 256;
/// Weights of a group of Q4_K and Q5_K.
const GROUP: usize = 32;
const GROUPS: usize = BLOCK / GROUP;
/// Weights of a group of Q6_K.
const SMALL: usize = 16;

/// Q4_K, or Q5_K where there is a fifth bit.
#[inline(always)]
pub(super) fn q45_k(row: &[f32], importance: Option<&[f32]>, out: &mut [u8], fifth: bool) {
    let size = if fifth { 176 } else { 144 };
    let largest = if fifth { 31 } else { 15 };
    let blocks = row.chunks_exact(BLOCK).zip(out.chunks_exact_mut(size));
    for (at, (x, out)) in blocks.enumerate() {
        let mut codes = [0u8; BLOCK];
        let importance = importance.map(|importance| &importance[at * BLOCK..][..BLOCK]);
        let scales = match importance {
            Some(importance) => weighted_scales(x, importance, largest, &mut codes),
            None => plain_scales(x, largest, &mut codes),
        };
        let d = put_half(out, 0, scales.scale);
        let dmin = put_half(out, 2, scales.minimum);
        pack_scales(&scales, &mut out[4..16]);
        for group in 0..GROUPS {
            let (scale, minimum) = unpack_scale(&out[4..16], group);
            let scale = d * f32::from(scale);
            if scale == 0.0 {
                continue;
            }
            let minimum = dmin * f32::from(minimum);
            let range = group * GROUP..(group + 1) * GROUP;
            for (code, &x) in codes[range.clone()].iter_mut().zip(&x[range]) {
                *code = nearest_integer((x + minimum) / scale).clamp(0, largest) as u8;
            }
        }
        let (high, low) = out[16..].split_at_mut(if fifth { 32 } else { 0 });
        high.fill(0);
        for pair in 0..GROUPS / 2 {
            for at in 0..GROUP {
                let first = codes[pair * 64 + at];
                let second = codes[pair * 64 + 32 + at];
                low[pair * 32 + at] = first & 15 | (second & 15) << 4;
                if fifth {
                    high[at] |= (first >> 4) << (2 * pair) | (second >> 4) << (2 * pair + 1);
                }
            }
        }
    }
}

/// Codes of a block's scales and minima, and what they are multiples of.
struct Scales {
    scale: f32,
    minimum: f32,
    scale_codes: [u8; GROUPS],
    minimum_codes: [u8; GROUPS],
}

#[inline(always)]
fn plain_scales(x: &[f32], largest: i32, codes: &mut [u8; BLOCK]) -> Scales {
    let candidates = match largest {
        15 => Candidates {
            first: -1.0,
            step: 0.1,
            count: 20,
        },
        _ => Candidates {
            first: -0.5,
            step: 0.1,
            count: 15,
        },
    };
    let x = side_by_side(x);
    let mut sums = [0.0; GROUPS];
    for x in &x {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x * x;
        }
    }
    let averages = sums.map(|sum| (sum / GROUP as f32).sqrt());
    let mut weights = [[0.0; GROUPS]; GROUP];
    for (weights, x) in weights.iter_mut().zip(&x) {
        for ((weight, x), average) in weights.iter_mut().zip(x).zip(averages) {
            *weight = average + x.abs();
        }
    }
    let (scales, minima) = searched(largest, &x, &weights, codes, candidates);
    let most = |values: &[f32; GROUPS]| {
        values
            .iter()
            .fold(0.0f32, |max, &v| if v > max { v } else { max })
    };
    let (scale, minimum) = (most(&scales), most(&minima));
    let code = |values: [f32; GROUPS], most: f32| {
        let inverse = if most > 0.0 { 63.0 / most } else { 0.0 };
        values.map(|value| (nearest_integer(inverse * value) as u8).min(63))
    };
    Scales {
        scale: scale / 63.0,
        minimum: minimum / 63.0,
        scale_codes: code(scales, scale),
        minimum_codes: code(minima, minimum),
    }
}

#[inline(always)]
fn weighted_scales(x: &[f32], importance: &[f32], largest: i32, codes: &mut [u8; BLOCK]) -> Scales {
    let mut sum = 0.0;
    for x in x {
        sum += x * x;
    }
    let variance = 2.0 * sum / BLOCK as f32;
    let (x, importance) = (side_by_side(x), side_by_side(importance));
    let mut totals = [0.0f32; GROUPS];
    let mut weights = [[0.0; GROUPS]; GROUP];
    for ((weights, x), importance) in weights.iter_mut().zip(&x).zip(&importance) {
        for group in 0..GROUPS {
            weights[group] = importance[group] * (variance + x[group] * x[group]).sqrt();
            totals[group] += weights[group];
        }
    }
    let (scales, minima) = searched(largest, &x, &weights, codes, WEIGHTED);
    let mut made = Scales {
        scale: 0.0,
        minimum: 0.0,
        scale_codes: [0; GROUPS],
        minimum_codes: [0; GROUPS],
    };
    made.scale = positive(63, &scales, &mut made.scale_codes, &totals);
    made.minimum = positive(63, &minima, &mut made.minimum_codes, &totals);
    made
}

/// The numbers of a block's groups, one group in each lane.
#[inline(always)]
fn side_by_side(block: &[f32]) -> [[f32; GROUPS]; GROUP] {
    let mut lanes = [[0.0; GROUPS]; GROUP];
    for (group, numbers) in block.chunks_exact(GROUP).enumerate() {
        for (lanes, number) in lanes.iter_mut().zip(numbers) {
            lanes[group] = *number;
        }
    }
    lanes
}

/// [`with_minimum`] of a block's groups.
#[inline(always)]
fn searched(
    largest: i32,
    x: &[[f32; GROUPS]; GROUP],
    weights: &[[f32; GROUPS]; GROUP],
    codes: &mut [u8; BLOCK],
    candidates: Candidates,
) -> ([f32; GROUPS], [f32; GROUPS]) {
    let mut lanes = [[0; GROUPS]; GROUP];
    let found = with_minimum(largest, x, weights, &mut lanes, candidates);
    for (group, codes) in codes.chunks_exact_mut(GROUP).enumerate() {
        for (code, lanes) in codes.iter_mut().zip(&lanes) {
            *code = lanes[group];
        }
    }
    found
}

/// Six bits each: the first four whole, the others in nibbles with their upper bits above those.
#[inline(always)]
fn pack_scales(scales: &Scales, out: &mut [u8]) {
    let pairs = scales.scale_codes.iter().zip(&scales.minimum_codes);
    for (group, (&scale, &minimum)) in pairs.enumerate() {
        if group < 4 {
            out[group] = scale;
            out[group + 4] = minimum;
        } else {
            out[group + 4] = scale & 15 | (minimum & 15) << 4;
            out[group - 4] |= scale >> 4 << 6;
            out[group] |= minimum >> 4 << 6;
        }
    }
}

#[inline(always)]
fn unpack_scale(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (packed[group] & 63, packed[group + 4] & 63);
    }
    let both = packed[group + 4];
    (
        both & 15 | packed[group - 4] >> 6 << 4,
        both >> 4 | packed[group] >> 6 << 4,
    )
}

#[inline(always)]
pub(super) fn q6_k(row: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    let blocks = row.chunks_exact(BLOCK).zip(out.chunks_exact_mut(210));
    for (at, (x, out)) in blocks.enumerate() {
        let mut codes = [0u8; BLOCK];
        let mut scales = [0.0f32; BLOCK / SMALL];
        let (mut largest, mut signed) = (0.0f32, 0.0);
        let groups = x.chunks_exact(SMALL).zip(codes.chunks_exact_mut(SMALL));
        for (group, (x, codes)) in groups.enumerate() {
            let start = at * BLOCK + group * SMALL;
            let weights = importance.map(|importance| &importance[start..start + SMALL]);
            scales[group] = symmetric(32, x, codes, weights);
            if scales[group].abs() > largest {
                (largest, signed) = (scales[group].abs(), scales[group]);
            }
        }
        out.fill(0);
        if largest < 1e-15 {
            continue;
        }
        let inverse = -128.0 / signed;
        let d = put_half(out, 208, 1.0 / inverse);
        for (group, scale) in scales.iter().enumerate() {
            let code = nearest_integer(inverse * scale).min(127) as i8;
            out[192 + group] = code as u8;
            let scale = d * f32::from(code);
            if scale == 0.0 {
                continue;
            }
            let range = group * SMALL..(group + 1) * SMALL;
            for (code, &x) in codes[range.clone()].iter_mut().zip(&x[range]) {
                *code = (nearest_integer(x / scale).clamp(-32, 31) + 32) as u8;
            }
        }
        for half in 0..2 {
            for at in 0..32 {
                let code = |quarter: usize| codes[half * 128 + quarter * 32 + at];
                out[half * 64 + at] = code(0) & 15 | (code(2) & 15) << 4;
                out[half * 64 + 32 + at] = code(1) & 15 | (code(3) & 15) << 4;
                out[128 + half * 32 + at] =
                    code(0) >> 4 | code(1) >> 4 << 2 | code(2) >> 4 << 4 | code(3) >> 4 << 6;
            }
        }
    }
}

/// Codes of 0 to 15, or to 31 where there is a fifth bit.
pub(super) fn q45_k_codes(block: &[u8], codes: &mut [i8], fifth: bool) {
    let (high, low) = block[16..].split_at(if fifth { 32 } else { 0 });
    for (group, codes) in codes.chunks_exact_mut(GROUP).enumerate() {
        for (at, code) in codes.iter_mut().enumerate() {
            let byte = low[group / 2 * 32 + at];
            let four = if group % 2 == 0 { byte & 15 } else { byte >> 4 };
            let fifth = if fifth { high[at] >> group & 1 } else { 0 };
            *code = (four | fifth << 4) as i8;
        }
    }
}

/// What a group's scale and minimum are multiples of, and the multiples of each group.
pub(super) fn q45_k_scales(block: &[u8]) -> ([f32; 2], [(u8, u8); GROUPS]) {
    let groups = std::array::from_fn(|group| unpack_scale(&block[4..16], group));
    ([half(block, 0), half(block, 2)], groups)
}

pub(super) fn from_q45_k(block: &[u8], out: &mut [f32], fifth: bool) {
    let ([d, dmin], groups) = q45_k_scales(block);
    let mut codes = [0; BLOCK];
    q45_k_codes(block, &mut codes, fifth);
    let parts = out.chunks_exact_mut(GROUP).zip(codes.chunks_exact(GROUP));
    for ((out, codes), (scale, minimum)) in parts.zip(groups) {
        let (scale, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = scale * f32::from(code) - minimum;
        }
    }
}

/// Codes of -32 to 31.
pub(super) fn q6_k_codes(block: &[u8], codes: &mut [i8]) {
    for (at, code) in codes.iter_mut().enumerate() {
        let (half, quarter, lane) = (at / 128, at / 32 % 4, at % 32);
        let byte = block[half * 64 + quarter % 2 * 32 + lane];
        let low = if quarter < 2 { byte & 15 } else { byte >> 4 };
        let high = block[128 + half * 32 + lane] >> (2 * quarter) & 3;
        *code = (low | high << 4) as i8 - 32;
    }
}

/// What groups' scales are multiples of, and the multiples of each group.
pub(super) fn q6_k_scales(block: &[u8]) -> (f32, [i8; BLOCK / SMALL]) {
    let multiples = std::array::from_fn(|group| block[192 + group] as i8);
    (half(block, 208), multiples)
}

pub(super) fn from_q6_k(block: &[u8], out: &mut [f32]) {
    let (d, multiples) = q6_k_scales(block);
    let mut codes = [0; BLOCK];
    q6_k_codes(block, &mut codes);
    for (at, (out, code)) in out.iter_mut().zip(codes).enumerate() {
        *out = d * f32::from(multiples[at / SMALL]) * f32::from(code);
    }
}
