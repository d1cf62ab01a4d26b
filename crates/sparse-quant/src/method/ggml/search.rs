//! The searches for scales that llama.cpp's types share.

use crate::method::round::{nearest, nearest_integer};

/// Below this a group counts as zero.
const LEAST: f32 = 1e-15;

/// A scale for codes from `-half` to `half - 1`, by the least weighted squared error over 19
/// candidates; codes come out `half` too large. Without `weights` a number's weight is its square.
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
    let mut inverses = [0.0f32; CANDIDATES];
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

/// Candidates of [`symmetric`].
const CANDIDATES: usize = 19;

/// For each candidate the weighted sums of number times code, and of code squared: every sum in the
/// order of the numbers, all candidates side by side.
fn sums(
    inverses: &[f32; CANDIDATES],
    half: i32,
    x: &[f32],
    weights: Option<&[f32]>,
) -> ([f32; CANDIDATES], [f32; CANDIDATES]) {
    let (low, high) = (-half as f32, (half - 1) as f32);
    let (mut lx, mut l2) = ([0.0; CANDIDATES], [0.0; CANDIDATES]);
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
/// best pair for each candidate's codes. Returns the scale and the minimum's negative.
pub(super) fn with_minimum(
    largest: i32,
    x: &[f32],
    weights: &[f32],
    codes: &mut [u8],
    candidates: Candidates,
) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for (&value, &weight) in x.iter().zip(weights).skip(1) {
        min = if value < min { value } else { min };
        max = if value > max { value } else { max };
        sum_w += weight;
        sum_x += weight * value;
    }
    min = min.min(0.0);
    if max <= min {
        codes.fill(0);
        return (0.0, -min);
    }
    let error = |codes: &[u8], scale: f32, min: f32| {
        let mut error = 0.0;
        for ((&code, &value), &weight) in codes.iter().zip(x).zip(weights) {
            let off = scale * f32::from(code) + min - value;
            error += weight * (off * off);
        }
        error
    };
    let fill = |codes: &mut [u8], inverse: f32, base: f32| {
        for (code, &value) in codes.iter_mut().zip(x) {
            *code = nearest_integer(inverse * (value - base)).clamp(0, largest) as u8;
        }
    };
    let mut inverse = largest as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    fill(codes, inverse, min);
    let mut best = error(codes, scale, min);
    let mut trial = [0u8; 32];
    let trial = &mut trial[..x.len()];
    for at in 0..=candidates.count {
        let reach = candidates.first + candidates.step * at as f32 + largest as f32;
        // From here on `min` is the best one so far, as it is there.
        inverse = reach / (max - min);
        fill(trial, inverse, min);
        let (mut l, mut l2, mut xl) = (0.0, 0.0, 0.0);
        for ((&code, &value), &weight) in trial.iter().zip(x).zip(weights) {
            let code = f32::from(code);
            l += weight * code;
            l2 += weight * code * code;
            xl += weight * code * value;
        }
        let determinant = sum_w * l2 - l * l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * xl - sum_x * l) / determinant;
            let mut this_min = (l2 * sum_x - l * xl) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = xl / l2;
            }
            let this_error = error(trial, this_scale, this_min);
            if this_error < best {
                codes.copy_from_slice(trial);
                best = this_error;
                scale = this_scale;
                min = this_min;
            }
        }
    }
    (scale, -min)
}

/// A scale for numbers that are not negative, as codes from 0 to `largest`, by weighted squared
/// error and then code by code.
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
