//! The searches for scales that llama.cpp's types share.

use crate::method::round::{nearest, nearest_integer};

/// Below this a group counts as zero.
const LEAST: f32 = 1e-15;

/// A scale for codes from `-half` to `half - 1`, by the least weighted squared error over 19
/// candidates; codes come out `half` too large. Without `weights` a number's weight is its square.
#[inline(always)]
pub(super) fn symmetric(half: i32, x: &[f32], codes: &mut [u8], weights: Option<&[f32]>) -> f32 {
    let (mut largest, mut signed) = (0.0, 0.0);
    for &value in x {
        if value.abs() > largest {
            (largest, signed) = (value.abs(), value);
        }
    }
    if largest < LEAST {
        codes.fill(0);
        return 0.0;
    }
    let fill = |codes: &mut [u8], inverse: f32| {
        for (code, &value) in codes.iter_mut().zip(x) {
            *code = (nearest_integer(inverse * value).clamp(-half, half - 1) + half) as u8;
        }
    };
    // The plain range first, then the others in their order.
    let steps = std::iter::once(0).chain((-9..=9).filter(|&step| step != 0));
    let mut inverses = [0.0f32; WIDTH];
    for (inverse, step) in inverses.iter_mut().zip(steps) {
        *inverse = -(half as f32 + 0.1 * step as f32) / signed;
    }
    let (lx, l2) = sums(&inverses, half, x, weights);
    fill(codes, inverses[0]);
    let mut scale = if l2[0] != 0.0 { lx[0] / l2[0] } else { 0.0 };
    let mut best = scale * lx[0];
    for at in 1..CANDIDATES {
        let (lx, l2) = (lx[at], l2[at]);
        if l2 > 0.0 && lx * lx > best * l2 {
            fill(codes, inverses[at]);
            scale = lx / l2;
            best = scale * lx;
        }
    }
    scale
}

/// [`symmetric`], then codes and scale by turns, each the best for the other: no candidate's codes
/// are the nearest to the scale that is the best for them, and llama.cpp leaves it at that. The
/// blocks are as any others; on the fixtures their divergence is 1 to 2 % less.
#[inline(always)]
pub(super) fn refined(half: i32, x: &[f32], codes: &mut [u8], weights: &[f32]) -> f32 {
    let mut scale = symmetric(half, x, codes, Some(weights));
    for _ in 0..TURNS {
        let inverse = 1.0 / scale;
        if !inverse.is_finite() {
            break;
        }
        let (mut lx, mut l2) = (0.0, 0.0);
        for ((code, &value), &weight) in codes.iter_mut().zip(x).zip(weights) {
            let nearest = nearest_integer(inverse * value).clamp(-half, half - 1);
            *code = (nearest + half) as u8;
            let nearest = nearest as f32;
            lx += weight * value * nearest;
            l2 += weight * nearest * nearest;
        }
        if l2 > 0.0 {
            scale = lx / l2;
        }
    }
    scale
}

/// Turns of [`refined`]; few blocks change in a fourth.
const TURNS: usize = 3;

/// Candidates of [`symmetric`], and lanes that they are worked on in: whole registers.
const CANDIDATES: usize = 19;
const WIDTH: usize = 24;

/// For each candidate the weighted sums of number times code, and of code squared: every sum in the
/// order of the numbers, all candidates side by side.
#[inline(always)]
fn sums(
    inverses: &[f32; WIDTH],
    half: i32,
    x: &[f32],
    weights: Option<&[f32]>,
) -> ([f32; WIDTH], [f32; WIDTH]) {
    let (low, high) = (-half as f32, (half - 1) as f32);
    let (mut lx, mut l2) = ([0.0; WIDTH], [0.0; WIDTH]);
    for (at, &value) in x.iter().enumerate() {
        let weight = weights.map_or(value * value, |weights| weights[at]);
        for ((lx, l2), &inverse) in lx.iter_mut().zip(&mut l2).zip(inverses) {
            let code = nearest(inverse * value).clamp(low, high);
            *lx += weight * value * code;
            *l2 += weight * code * code;
        }
    }
    (lx, l2)
}

/// The candidates of [`with_minimum`]: `first + step * i`, added to the largest code.
#[derive(Clone, Copy)]
pub(super) struct Candidates {
    pub first: f32,
    pub step: f32,
    pub count: i32,
}

/// A scale and a minimum for codes from 0 to `largest`, by the least weighted squared error: the
/// best pair for each candidate's codes. Of `LANES` groups of at most [`MOST`] numbers side by side,
/// as the sums of one have to be taken number by number. Returns scales and the minima's negatives.
#[inline(always)]
pub(super) fn with_minimum<const LANES: usize>(
    largest: i32,
    x: &[[f32; LANES]],
    weights: &[[f32; LANES]],
    codes: &mut [[u8; LANES]],
    candidates: Candidates,
) -> ([f32; LANES], [f32; LANES]) {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = [0.0; LANES];
    for lane in 0..LANES {
        sum_x[lane] = sum_w[lane] * x[0][lane];
    }
    for (x, weights) in x.iter().zip(weights).skip(1) {
        for lane in 0..LANES {
            min[lane] = if x[lane] < min[lane] {
                x[lane]
            } else {
                min[lane]
            };
            max[lane] = if x[lane] > max[lane] {
                x[lane]
            } else {
                max[lane]
            };
            sum_w[lane] += weights[lane];
            sum_x[lane] += weights[lane] * x[lane];
        }
    }
    min = min.map(|min| min.min(0.0));
    let flat: [bool; LANES] = std::array::from_fn(|lane| max[lane] <= min[lane]);
    let lowest = min;
    let top = largest as f32;
    let mut chosen = [[0.0f32; LANES]; MOST];
    let mut inverse: [f32; LANES] = std::array::from_fn(|lane| top / (max[lane] - min[lane]));
    let mut scale = inverse.map(|inverse| 1.0 / inverse);
    for (codes, x) in chosen.iter_mut().zip(x) {
        for lane in 0..LANES {
            codes[lane] = nearest(inverse[lane] * (x[lane] - min[lane])).clamp(0.0, top);
        }
    }
    let mut best = errors(&chosen, x, weights, &scale, &min);
    for at in 0..=candidates.count {
        let reach = candidates.first + candidates.step * at as f32 + top;
        let mut trial = [[0.0f32; LANES]; MOST];
        let (mut l, mut l2, mut xl) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            // `min` is the best one so far, as it is there.
            inverse[lane] = reach / (max[lane] - min[lane]);
        }
        for ((codes, x), weights) in trial.iter_mut().zip(x).zip(weights) {
            for lane in 0..LANES {
                let code = nearest(inverse[lane] * (x[lane] - min[lane])).clamp(0.0, top);
                codes[lane] = code;
                l[lane] += weights[lane] * code;
                l2[lane] += weights[lane] * code * code;
                xl[lane] += weights[lane] * code * x[lane];
            }
        }
        let (mut this_scale, mut this_min) = ([0.0; LANES], [0.0; LANES]);
        let mut solved = [false; LANES];
        for lane in 0..LANES {
            let determinant = sum_w[lane] * l2[lane] - l[lane] * l[lane];
            solved[lane] = determinant > 0.0;
            let low = (l2[lane] * sum_x[lane] - l[lane] * xl[lane]) / determinant;
            let both = (sum_w[lane] * xl[lane] - sum_x[lane] * l[lane]) / determinant;
            this_scale[lane] = if low > 0.0 { xl[lane] / l2[lane] } else { both };
            this_min[lane] = if low > 0.0 { 0.0 } else { low };
        }
        let error = errors(&trial, x, weights, &this_scale, &this_min);
        let better: [bool; LANES] =
            std::array::from_fn(|lane| solved[lane] && error[lane] < best[lane]);
        if better == [false; LANES] {
            continue;
        }
        for lane in 0..LANES {
            if better[lane] {
                (best[lane], scale[lane], min[lane]) =
                    (error[lane], this_scale[lane], this_min[lane]);
            }
        }
        for (chosen, trial) in chosen.iter_mut().zip(&trial).take(x.len()) {
            for lane in 0..LANES {
                chosen[lane] = if better[lane] {
                    trial[lane]
                } else {
                    chosen[lane]
                };
            }
        }
    }
    for (codes, chosen) in codes.iter_mut().zip(&chosen) {
        for lane in 0..LANES {
            codes[lane] = if flat[lane] { 0 } else { chosen[lane] as u8 };
        }
    }
    let (mut scales, mut below) = ([0.0; LANES], [0.0; LANES]);
    for lane in 0..LANES {
        (scales[lane], below[lane]) = if flat[lane] {
            (0.0, -lowest[lane])
        } else {
            (scale[lane], -min[lane])
        };
    }
    (scales, below)
}

/// Numbers of a group of [`with_minimum`], at most.
const MOST: usize = 32;

/// The weighted squared error that codes leave in each lane.
#[inline(always)]
fn errors<const LANES: usize>(
    codes: &[[f32; LANES]; MOST],
    x: &[[f32; LANES]],
    weights: &[[f32; LANES]],
    scale: &[f32; LANES],
    min: &[f32; LANES],
) -> [f32; LANES] {
    let mut errors = [0.0; LANES];
    for ((codes, x), weights) in codes.iter().zip(x).zip(weights) {
        for lane in 0..LANES {
            let off = scale[lane] * codes[lane] + min[lane] - x[lane];
            errors[lane] += weights[lane] * (off * off);
        }
    }
    errors
}

/// A scale for numbers that are not negative, as codes from 0 to `largest`, by weighted squared
/// error and then code by code.
#[inline(always)]
pub(super) fn positive(largest: i32, x: &[f32], codes: &mut [u8], weights: &[f32]) -> f32 {
    let max = x.iter().fold(0.0f32, |max, &value| max.max(value));
    if max < LEAST {
        codes.fill(0);
        return 0.0;
    }
    let error = |inverse: f32, bounded: bool| {
        let scale = 1.0 / inverse;
        let mut error = 0.0;
        for (&value, &weight) in x.iter().zip(weights) {
            let code = nearest_integer(inverse * value);
            let code = if bounded { code.min(largest) } else { code };
            let off = value - scale * code as f32;
            error += weight * off * off;
        }
        error
    };
    let mut inverse = largest as f32 / max;
    let mut best = error(inverse, false);
    for step in (-4..=4).filter(|&step| step != 0) {
        let candidate = (0.1 * step as f32 + largest as f32) / max;
        let this = error(candidate, true);
        if this < best {
            (best, inverse) = (this, candidate);
        }
    }
    let (mut lx, mut l2) = (0.0, 0.0);
    for ((code, &value), &weight) in codes.iter_mut().zip(x).zip(weights) {
        *code = nearest_integer(inverse * value).min(largest) as u8;
        let code = f32::from(*code);
        lx += weight * value * code;
        l2 += weight * code * code;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((code, &value), &weight) in codes.iter_mut().zip(x).zip(weights) {
            let old = f32::from(*code);
            let mut without_lx = lx - weight * value * old;
            let mut without_l2 = l2 - weight * old * old;
            if without_lx > 0.0 && without_l2 > 0.0 {
                let new = nearest_integer(value * without_l2 / without_lx).min(largest);
                if new != i32::from(*code) {
                    let wide = new as f32;
                    without_lx += weight * value * wide;
                    without_l2 += weight * wide * wide;
                    if without_lx * without_lx * l2 > lx * lx * without_l2 {
                        *code = new as u8;
                        (lx, l2) = (without_lx, without_l2);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if l2 > 0.0 { lx / l2 } else { 0.0 }
}
