//! AWQ: inputs that matter are scaled up before rounding, and what makes them is scaled down, so
//! that their weights come out finer; then ranges are clipped where that helps.
//!
//! The error that counts is that of a layer's outputs, which the inputs' second moments give.

use rayon::prelude::*;

use super::affine::{Affine, AffineSpec};
use super::rtn;
use crate::Matrix;

/// Exponents that are tried.
const GRID: usize = 20;
/// Rows of a matrix that the grid is tried on: enough to tell exponents apart.
const SAMPLED_ROWS: usize = 96;
/// Ranges that are tried: from the whole down to about half.
const CLIPS: usize = 10;

/// The scale of each input that leaves the least error in the outputs of `layers`, which all read
/// the same inputs; `gram` is their sum of x xᵀ, `mean_abs` their mean magnitude.
///
/// # Panics
/// If the layers have no or different numbers of inputs, or the statistics are of another size.
pub fn scales(layers: &[&Matrix], gram: &[f32], mean_abs: &[f64], spec: &AffineSpec) -> Vec<f32> {
    let cols = layers[0].cols();
    assert!(layers.iter().all(|layer| layer.cols() == cols));
    assert!(gram.len() == cols * cols && mean_abs.len() == cols);
    let sample: Vec<f32> = layers.iter().flat_map(|layer| sampled(layer)).collect();
    let rows = sample.len() / cols;
    let sizes = mean_sizes(layers, spec.group_in(cols));
    let candidates: Vec<Vec<f32>> = (0..GRID)
        .map(|step| candidate(mean_abs, &sizes, step as f64 / GRID as f64))
        .collect();
    let loss = |scales: &Vec<f32>| -> f64 {
        let scaled = sample
            .chunks_exact(cols)
            .flat_map(|row| row.iter().zip(scales));
        let scaled = scaled.map(|(weight, scale)| weight * scale).collect();
        let Some(scaled) = Matrix::new(rows, cols, scaled) else {
            return f64::INFINITY;
        };
        let back = rtn::quantize(&scaled, spec).dequantize();
        (0..rows)
            .map(|row| {
                let original = &sample[row * cols..][..cols];
                let values = original.iter().zip(back.row(row)).zip(scales);
                let off: Vec<f32> = values.map(|((w, q), s)| w - q / s).collect();
                quadratic(&off, gram, cols)
            })
            .sum()
    };
    let losses: Vec<f64> = candidates.par_iter().map(loss).collect();
    let best = (0..GRID).min_by(|&a, &b| losses[a].total_cmp(&losses[b]));
    candidates[best.unwrap_or(0)].clone()
}

/// Rows of a matrix, evenly spread.
fn sampled(layer: &Matrix) -> Vec<f32> {
    let step = layer.rows().div_ceil(SAMPLED_ROWS).max(1);
    (0..layer.rows())
        .step_by(step)
        .flat_map(|row| layer.row(row).to_vec())
        .collect()
}

/// The mean magnitude of each input's weights, relative to their groups.
fn mean_sizes(layers: &[&Matrix], group_size: usize) -> Vec<f64> {
    let cols = layers[0].cols();
    let mut sums = vec![0.0; cols];
    let mut rows = 0;
    for layer in layers {
        rows += layer.rows();
        for row in 0..layer.rows() {
            let values = layer.row(row).chunks(group_size);
            for (values, sums) in values.zip(sums.chunks_mut(group_size)) {
                let largest = values.iter().fold(1e-6f32, |max, v| max.max(v.abs()));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += f64::from(value.abs() / largest);
                }
            }
        }
    }
    sums.iter().map(|sum| sum / rows.max(1) as f64).collect()
}

fn candidate(mean_abs: &[f64], sizes: &[f64], exponent: f64) -> Vec<f32> {
    let raw = mean_abs
        .iter()
        .zip(sizes)
        .map(|(x, w)| (x.powf(exponent) / (w.powf(1.0 - exponent) + 1e-4)).max(1e-4));
    let raw: Vec<f64> = raw.collect();
    let (low, high) = raw.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &s| {
        (low.min(s), high.max(s))
    });
    let middle = (low * high).sqrt();
    raw.iter().map(|s| (s / middle) as f32).collect()
}

/// off · G · off.
fn quadratic(off: &[f32], gram: &[f32], cols: usize) -> f64 {
    let mut sum = 0.0;
    for (line, &left) in gram.chunks_exact(cols).zip(off) {
        if left != 0.0 {
            let product: f32 = line.iter().zip(off).map(|(g, o)| g * o).sum();
            sum += f64::from(left) * f64::from(product);
        }
    }
    sum
}

/// Rounds with the range of each group that leaves the least error in the outputs, as far as the
/// group's own inputs tell.
///
/// # Panics
/// If `gram` is of another size than the inputs need.
pub fn quantize_clipped(weights: &Matrix, gram: &[f32], spec: &AffineSpec) -> Affine {
    let (cols, size) = (weights.cols(), spec.group_in(weights.cols()));
    assert_eq!(gram.len(), cols * cols);
    let mut clipped = weights.clone();
    clipped
        .data_mut()
        .par_chunks_mut(cols.max(1))
        .for_each(|row| {
            for (group, values) in row.chunks_mut(size).enumerate() {
                let start = group * size;
                let loss = |limit: f32| {
                    let held: Vec<f32> = values.iter().map(|v| v.clamp(-limit, limit)).collect();
                    let (scale, zero) = spec.parameters(&held, None);
                    let back = |value: f32| {
                        scale * (f32::from(spec.code(value, scale, zero)) - f32::from(zero))
                    };
                    let off: Vec<f32> = values
                        .iter()
                        .zip(&held)
                        .map(|(&v, &held)| v - back(held))
                        .collect();
                    let mut sum = 0.0;
                    for (at, &left) in off.iter().enumerate() {
                        let line = &gram[(start + at) * cols + start..][..off.len()];
                        let product: f32 = line.iter().zip(&off).map(|(g, o)| g * o).sum();
                        sum += f64::from(left) * f64::from(product);
                    }
                    sum
                };
                let largest = values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
                let limits =
                    (0..CLIPS).map(|step| largest * (1.0 - step as f32 / (2 * CLIPS) as f32));
                let losses: Vec<(f64, f32)> = limits.map(|limit| (loss(limit), limit)).collect();
                let best = losses.iter().min_by(|a, b| a.0.total_cmp(&b.0));
                let limit = best.map_or(largest, |best| best.1);
                for value in values {
                    *value = value.clamp(-limit, limit);
                }
            }
        });
    rtn::quantize(&clipped, spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::affine::tests::spec;

    /// Inputs of which a few are far larger than the others, and weights that do not know it.
    fn outliers(cols: usize) -> (Matrix, Vec<f32>, Vec<f64>) {
        let size = |col: usize| if col % 16 == 3 { 30.0 } else { 1.0 };
        let noise = |seed: usize| (seed * 7919 % 10007) as f32 / 5003.5 - 1.0;
        let mut gram = vec![0.0; cols * cols];
        let mut mean = vec![0.0; cols];
        let samples = 200;
        for sample in 0..samples {
            let x: Vec<f32> = (0..cols)
                .map(|col| size(col) * noise(sample * 131 + col * 17 + 5))
                .collect();
            for i in 0..cols {
                mean[i] += f64::from(x[i].abs()) / f64::from(samples as u32);
                for j in 0..cols {
                    gram[i * cols + j] += x[i] * x[j];
                }
            }
        }
        let weights = (0..24 * cols).map(|i| noise(i * 31 + 1)).collect();
        (Matrix::new(24, cols, weights).unwrap(), gram, mean)
    }

    fn loss(weights: &Matrix, back: &Matrix, gram: &[f32]) -> f64 {
        let cols = weights.cols();
        (0..weights.rows())
            .map(|row| {
                let pairs = weights.row(row).iter().zip(back.row(row));
                let off: Vec<f32> = pairs.map(|(a, b)| a - b).collect();
                quadratic(&off, gram, cols)
            })
            .sum()
    }

    #[test]
    fn scaling_protects_the_inputs_that_matter() {
        let (weights, gram, mean) = outliers(64);
        let spec = spec(4, 64, false);
        let scales = scales(&[&weights], &gram, &mean, &spec);
        let mut scaled = weights.clone();
        for row in 0..24 {
            for (w, s) in scaled.row_mut(row).iter_mut().zip(&scales) {
                *w *= s;
            }
        }
        let mut back = rtn::quantize(&scaled, &spec).dequantize();
        for row in 0..24 {
            for (w, s) in back.row_mut(row).iter_mut().zip(&scales) {
                *w /= s;
            }
        }
        let plain = rtn::quantize(&weights, &spec).dequantize();
        let (ours, rounding) = (loss(&weights, &back, &gram), loss(&weights, &plain, &gram));
        assert!(ours < 0.5 * rounding, "{ours} {rounding}");
    }

    #[test]
    fn clipping_never_leaves_a_greater_error_in_its_groups() {
        let (weights, gram, _) = outliers(32);
        let spec = spec(3, 32, false);
        let clipped = quantize_clipped(&weights, &gram, &spec).dequantize();
        let plain = rtn::quantize(&weights, &spec).dequantize();
        assert!(loss(&weights, &clipped, &gram) <= loss(&weights, &plain, &gram) * 1.0001);
    }
}
