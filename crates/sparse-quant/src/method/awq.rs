//! AWQ: inputs that matter are scaled up before rounding, and what makes them is scaled down, so
//! that their weights come out finer; then ranges are clipped where that helps.
//!
//! The scales of some layers are chosen by the error that they leave, in the outputs of those layers
//! (their inputs' second moments give it) or of the layer that their outputs lead to, which the
//! caller runs. Source: Lin et al., "AWQ: Activation-aware Weight Quantization" (2023), and the
//! clipping of its authors' code.

use rayon::prelude::*;
use sparse_engine::{Dense, Linear, Rows, product};

use super::affine::{Affine, AffineSpec};
use super::rtn;
use crate::Matrix;

/// Exponents that are tried.
const GRID: usize = 20;
/// Rows of a matrix whose outputs tell one exponent from another.
const SAMPLED_ROWS: usize = 512;
/// Ranges that are tried: from the whole down to about half.
const CLIPS: usize = 10;
/// Rows that are clipped together.
const TOGETHER: usize = 32;

/// The scales of the inputs of `layers`, which all read the same ones, that are worth trying.
///
/// # Panics
/// If the layers have no or different numbers of inputs, or `mean_abs`, the inputs' mean magnitude,
/// is of another size.
pub fn candidates(layers: &[&Matrix], mean_abs: &[f64], spec: &AffineSpec) -> Vec<Vec<f32>> {
    let cols = layers[0].cols();
    assert!(layers.iter().all(|layer| layer.cols() == cols) && mean_abs.len() == cols);
    let sizes = mean_sizes(layers, spec.group_in(cols));
    (0..GRID)
        .map(|step| candidate(mean_abs, &sizes, step as f64 / GRID as f64))
        .collect()
}

/// The weights that count in the place of `layer`'s when they are quantized with their inputs
/// scaled.
pub fn with_scales(layer: &Matrix, scales: &[f32], spec: &AffineSpec) -> Matrix {
    let mut scaled = layer.clone();
    for row in 0..layer.rows() {
        for (weight, scale) in scaled.row_mut(row).iter_mut().zip(scales) {
            *weight *= scale;
        }
    }
    let mut back = rtn::quantize(&scaled, spec).dequantize();
    for row in 0..layer.rows() {
        for (weight, scale) in back.row_mut(row).iter_mut().zip(scales) {
            *weight /= scale;
        }
    }
    back
}

/// The squared error in the outputs of `layers` with each of `candidates`; `gram` is the sum of
/// x xᵀ over their inputs.
///
/// # Panics
/// If `gram` is of another size than the inputs need.
pub fn losses(
    layers: &[&Matrix],
    candidates: &[Vec<f32>],
    gram: &[f32],
    spec: &AffineSpec,
) -> Vec<f64> {
    let cols = layers[0].cols();
    assert_eq!(gram.len(), cols * cols);
    let gram = Dense::from_f32(gram, cols);
    let samples: Vec<Matrix> = layers.iter().map(|layer| sampled(layer)).collect();
    let loss = |scales: &Vec<f32>| {
        let of_layer = |sample: &Matrix| {
            let back = with_scales(sample, scales, spec);
            let pairs = sample.data().iter().zip(back.data());
            let off: Vec<f32> = pairs.map(|(weight, back)| weight - back).collect();
            squares(&off, &gram).iter().sum::<f64>()
        };
        samples.iter().map(of_layer).sum()
    };
    candidates.iter().map(loss).collect()
}

/// Rows of a matrix, evenly spread.
fn sampled(layer: &Matrix) -> Matrix {
    let step = layer.rows().div_ceil(SAMPLED_ROWS).max(1);
    let rows = (0..layer.rows()).step_by(step);
    let values: Vec<f32> = rows
        .clone()
        .flat_map(|row| layer.row(row).to_vec())
        .collect();
    Matrix::new(rows.len(), layer.cols(), values).unwrap_or_else(|| layer.clone())
}

/// x · G · x of every row x.
fn squares(rows: &[f32], gram: &Dense) -> Vec<f64> {
    let cols = gram.inputs();
    let products = product(gram, Rows::new(rows, rows.len() / cols, cols));
    let dot = |(a, b): (&[f32], &[f32])| {
        let part = |(a, b): (&[f32], &[f32])| {
            let sum: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            f64::from(sum)
        };
        a.chunks(64).zip(b.chunks(64)).map(part).sum()
    };
    let pairs = rows.chunks_exact(cols).zip(products.chunks_exact(cols));
    pairs.map(dot).collect()
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

/// Rounds with the range of each group that leaves the least error in the outputs, as far as the
/// group's own inputs tell.
///
/// # Panics
/// If `gram` is of another size than the inputs need.
pub fn quantize_clipped(weights: &Matrix, gram: &[f32], spec: &AffineSpec) -> Affine {
    let (cols, size) = (weights.cols(), spec.group_in(weights.cols()));
    assert_eq!(gram.len(), cols * cols);
    // The second moments of each group's inputs.
    let grams: Vec<Dense> = (0..cols)
        .step_by(size)
        .map(|start| {
            let inputs = start..(start + size).min(cols);
            let lines = inputs.clone().map(|at| &gram[at * cols..][inputs.clone()]);
            Dense::from_f32(&lines.collect::<Vec<_>>().concat(), inputs.len())
        })
        .collect();
    let mut clipped = weights.clone();
    clipped
        .data_mut()
        .par_chunks_mut(TOGETHER * cols.max(1))
        .for_each(|rows| {
            for (group, gram) in grams.iter().enumerate() {
                clip(rows, cols, group * size, gram, spec);
            }
        });
    rtn::quantize(&clipped, spec)
}

/// Holds the weights of a few rows' groups that begin at `start` within the range that is best for
/// each row.
fn clip(rows: &mut [f32], cols: usize, start: usize, gram: &Dense, spec: &AffineSpec) {
    let size = gram.inputs();
    let largest: Vec<f32> = rows
        .chunks_exact(cols)
        .map(|row| {
            let values = &row[start..start + size];
            values.iter().fold(0.0f32, |max, v| max.max(v.abs()))
        })
        .collect();
    let limit = |largest: f32, step: usize| largest * (1.0 - step as f32 / (2 * CLIPS) as f32);
    // Row by row, the errors that each range leaves.
    let mut off = Vec::with_capacity(largest.len() * CLIPS * size);
    let mut held = vec![0.0; size];
    for (row, &largest) in rows.chunks_exact(cols).zip(&largest) {
        let values = &row[start..start + size];
        for step in 0..CLIPS {
            let limit = limit(largest, step);
            for (held, value) in held.iter_mut().zip(values) {
                *held = value.clamp(-limit, limit);
            }
            let (scale, zero) = spec.parameters(&held, None);
            off.extend(values.iter().zip(&held).map(|(&value, &held)| {
                let code = spec.code(held, scale, zero);
                value - scale * (f32::from(code) - f32::from(zero))
            }));
        }
    }
    let losses = squares(&off, gram);
    let found = losses.chunks_exact(CLIPS).zip(&largest);
    for (row, (losses, &largest)) in rows.chunks_exact_mut(cols).zip(found) {
        let best = (0..CLIPS).min_by(|&a, &b| losses[a].total_cmp(&losses[b]));
        let limit = limit(largest, best.unwrap_or(0));
        for value in &mut row[start..start + size] {
            *value = value.clamp(-limit, limit);
        }
    }
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
        let pairs = weights.data().iter().zip(back.data());
        let off: Vec<f32> = pairs.map(|(a, b)| a - b).collect();
        squares(&off, &Dense::from_f32(gram, weights.cols()))
            .iter()
            .sum()
    }

    #[test]
    fn scaling_protects_the_inputs_that_matter() {
        let (weights, gram, mean) = outliers(64);
        let spec = spec(4, 64, false);
        let tried = candidates(&[&weights], &mean, &spec);
        let found = losses(&[&weights], &tried, &gram, &spec);
        let best = (0..GRID).min_by(|&a, &b| found[a].total_cmp(&found[b]));
        let back = with_scales(&weights, &tried[best.unwrap()], &spec);
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
