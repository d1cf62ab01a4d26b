//! A linear layer, whatever its weights are stored as.

use std::fmt;
use std::ops::Range;

use rayon::prelude::*;

use crate::coded::Outlier;
use crate::config::Activation;
use crate::kernels::coded::Activations;
use crate::kernels::matmul::multiply;
use crate::kernels::panels::{Values, WIDTH};
use crate::kernels::{Level, vector};

pub use crate::kernels::matmul::Rows;

/// Outputs that [`Linear::tile`] is asked for at a time, but at the end.
pub const TILE_OUTPUTS: usize = 64;

/// What all tiles of the same rows need, made once: see [`Linear::prepare`].
#[derive(Debug, Default)]
pub struct Prepared {
    pub(crate) activations: Activations,
    pub(crate) outliers: Vec<Outlier>,
}

/// The weights of a linear layer, and how they are multiplied.
///
/// The engine cuts the outputs into tiles and runs them on its threads; an implementation works on
/// one tile, on the thread that calls it.
pub trait Linear: fmt::Debug + Send + Sync {
    /// Width of a row of activations.
    fn inputs(&self) -> usize;

    /// Width of a row of results.
    fn outputs(&self) -> usize;

    /// Bytes that the weights take in memory.
    fn bytes(&self) -> usize;

    /// Most rows that [`Linear::tile`] is asked for at a time, a multiple of six: so many that
    /// unpacking weights for them counts for little, so few that threads share the work.
    fn tile_rows(&self) -> usize;

    /// Whether activations are rounded before they meet the weights.
    fn rounds(&self) -> bool {
        false
    }

    /// Whatever all tiles of the same rows need: activations in another type, say. `prepared` is
    /// empty; it comes with [`Linear::tile`] again.
    fn prepare(&self, _rows: Rows<'_>, _prepared: &mut Prepared) {}

    /// Multiplies: `out[r * outputs.len() + i]` becomes row `r` times output `outputs.start + i`.
    ///
    /// `outputs` begins at a multiple of [`TILE_OUTPUTS`] and is that long, or ends where the
    /// outputs end; `rows` are at most [`Linear::tile_rows`].
    fn tile(&self, rows: Rows<'_>, prepared: &Prepared, outputs: Range<usize>, out: &mut [f32]);

    /// The weights of one output, as they count: a row of an embedding.
    fn weights(&self, output: usize, out: &mut [f32]);
}

/// Weights as stored, F32, BF16 or F16, in panels of sixteen outputs.
#[derive(Debug)]
pub struct Dense {
    values: Values,
    inputs: usize,
    outputs: usize,
    level: Level,
}

impl Dense {
    pub(crate) fn new(values: Values, inputs: usize, outputs: usize) -> Dense {
        Dense {
            values,
            inputs,
            outputs,
            level: Level::detect(),
        }
    }

    /// From f32 weights, `inputs` for each output.
    ///
    /// ```
    /// use sparse_engine::{Dense, Linear, Prepared, Rows};
    ///
    /// let layer = Dense::from_f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3);
    /// assert_eq!((layer.inputs(), layer.outputs()), (3, 2));
    /// let mut out = [0.0; 2];
    /// layer.tile(Rows::new(&[1.0, 0.0, 1.0], 1, 3), &Prepared::default(), 0..2, &mut out);
    /// assert_eq!(out, [4.0, 10.0]);
    /// ```
    ///
    /// # Panics
    /// If `weights` is not a multiple of `inputs` long.
    pub fn from_f32(weights: &[f32], inputs: usize) -> Dense {
        assert!(inputs > 0 && weights.len().is_multiple_of(inputs));
        let outputs = weights.len() / inputs;
        let mut values = vec![0.0; outputs.div_ceil(WIDTH) * inputs * WIDTH];
        for (n, row) in weights.chunks_exact(inputs).enumerate() {
            for (k, &weight) in row.iter().enumerate() {
                values[(n / WIDTH * inputs + k) * WIDTH + n % WIDTH] = weight;
            }
        }
        Dense::new(Values::F32(values), inputs, outputs)
    }
}

impl Linear for Dense {
    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn bytes(&self) -> usize {
        self.values.bytes()
    }

    fn tile_rows(&self) -> usize {
        384
    }

    fn tile(&self, rows: Rows<'_>, _prepared: &Prepared, outputs: Range<usize>, out: &mut [f32]) {
        let panels = outputs.start / WIDTH..outputs.end.div_ceil(WIDTH);
        let (level, width) = (self.level, outputs.len());
        if width.is_multiple_of(WIDTH) {
            multiply(level, rows, &self.values, self.inputs, panels, out, width);
            return;
        }
        // The last panel's outputs are more than were asked for.
        let padded = panels.len() * WIDTH;
        let mut wide = vec![0.0; rows.count() * padded];
        multiply(
            level,
            rows,
            &self.values,
            self.inputs,
            panels,
            &mut wide,
            padded,
        );
        for (out, wide) in out.chunks_exact_mut(width).zip(wide.chunks_exact(padded)) {
            out.copy_from_slice(&wide[..width]);
        }
    }

    fn weights(&self, output: usize, out: &mut [f32]) {
        for (k, out) in out.iter_mut().enumerate() {
            *out = self.values.at(self.inputs, output, k);
        }
    }
}

/// What becomes of a product.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Finish {
    /// It is stored.
    Store,
    /// It is activated and stored.
    Activate(Activation),
    /// It is added to what is there.
    Add,
    /// What is there is multiplied by it.
    Multiply,
}

/// Rows that are written to: a window of `width` columns, from `offset` on, of rows that begin
/// `stride` values apart.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    values: &'a mut [f32],
    offset: usize,
    stride: usize,
}

impl<'a> Target<'a> {
    pub fn new(values: &'a mut [f32], stride: usize) -> Target<'a> {
        Target::at(values, stride, 0)
    }

    pub fn at(values: &'a mut [f32], stride: usize, offset: usize) -> Target<'a> {
        Target {
            values,
            offset,
            stride,
        }
    }
}

/// Multiplies `rows` by `linear` on all threads of the current pool, adds `bias`, and finishes.
pub(crate) fn apply(
    linear: &dyn Linear,
    bias: Option<&[f32]>,
    rows: Rows<'_>,
    target: Target<'_>,
    finish: Finish,
) {
    let (outputs, level) = (linear.outputs(), Level::detect());
    if rows.count() == 0 {
        return;
    }
    assert!(rows.width() == linear.inputs() && target.offset + outputs <= target.stride);
    let end = (rows.count() - 1) * target.stride + target.offset + outputs;
    assert!(target.values.len() >= end && bias.is_none_or(|bias| bias.len() == outputs));
    let shared = Shared(target.values.as_mut_ptr());

    let chunk = rows_per_tile(rows.count(), linear.tile_rows());
    let row_chunks: Vec<(Rows<'_>, usize, Prepared)> = (0..rows.count().div_ceil(chunk))
        .into_par_iter()
        .map(|at| {
            let first = at * chunk;
            let rows = rows.slice(first..(first + chunk).min(rows.count()));
            let mut prepared = Prepared::default();
            linear.prepare(rows, &mut prepared);
            (rows, first, prepared)
        })
        .collect();
    let tiles = outputs.div_ceil(TILE_OUTPUTS);

    let work = |tile: &mut Vec<f32>, at: usize| {
        let (rows, first, prepared) = &row_chunks[at / tiles];
        let start = at % tiles * TILE_OUTPUTS;
        let columns = start..(start + TILE_OUTPUTS).min(outputs);
        let width = columns.len();
        tile.resize(rows.count() * width, 0.0);
        linear.tile(*rows, prepared, columns.clone(), tile);
        for (r, values) in tile.chunks_exact_mut(width).enumerate() {
            if let Some(bias) = bias {
                vector::add(level, values, &bias[columns.clone()]);
            }
            let at = (first + r) * target.stride + target.offset + start;
            // SAFETY: each row and tile of columns is worked on by one thread alone, and all of
            // them are within `target.values`, which is borrowed for as long as this runs.
            let out = unsafe { std::slice::from_raw_parts_mut(shared.at(at), width) };
            match finish {
                Finish::Add => vector::add(level, out, values),
                Finish::Multiply => vector::multiply(level, out, values),
                Finish::Store => out.copy_from_slice(values),
                Finish::Activate(activation) => {
                    activate(level, activation, values);
                    out.copy_from_slice(values);
                }
            }
        }
    };
    // A tile of one row is a few microseconds: several of them are worth a thread's while.
    let least = if rows.count() == 1 { 2 } else { 1 };
    (0..row_chunks.len() * tiles)
        .into_par_iter()
        .with_min_len(least)
        .for_each_init(Vec::new, work);
}

/// What `linear` makes of every row, `[rows, outputs]`, on all threads of the current pool.
///
/// # Panics
/// If rows are of another width than the layer's inputs.
pub fn product(linear: &dyn Linear, rows: Rows<'_>) -> Vec<f32> {
    let outputs = linear.outputs();
    let mut out = vec![0.0; rows.count() * outputs];
    let target = Target::new(&mut out, outputs);
    apply(linear, None, rows, target, Finish::Store);
    out
}

pub(crate) fn activate(level: Level, activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::Gelu => vector::gelu_erf(level, values),
        Activation::GeluTanh => vector::gelu_tanh(level, values),
        Activation::GeluQuick => vector::gelu_quick(level, values),
        Activation::Relu => vector::relu(level, values),
        Activation::Silu => vector::silu(level, values),
    }
}

/// Rows are cut into chunks as equal as can be, of whole register tiles.
fn rows_per_tile(count: usize, most: usize) -> usize {
    let chunks = count.div_ceil(most);
    count.div_ceil(chunks).next_multiple_of(6).min(most)
}

/// The beginning of memory that threads write disjoint parts of.
struct Shared(*mut f32);

// SAFETY: a pointer is only a number; what it is used for is argued where it is used.
unsafe impl Sync for Shared {}

impl Shared {
    /// The place `offset` values on.
    ///
    /// # Safety
    /// It is within the memory that the pointer was made from.
    unsafe fn at(&self, offset: usize) -> *mut f32 {
        // SAFETY: by contract.
        unsafe { self.0.add(offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_output() {
        let (count, inputs, outputs) = (401, 5, 131);
        let rows: Vec<f32> = (0..count * inputs).map(|i| (i % 7) as f32 - 3.0).collect();
        let weights: Vec<f32> = (0..outputs * inputs).map(|i| (i % 11) as f32).collect();
        let matrix = Dense::from_f32(&weights, inputs);
        let made = product(&matrix, Rows::new(&rows, count, inputs));
        for (at, row) in rows.chunks(inputs).enumerate() {
            for (n, weights) in weights.chunks(inputs).enumerate() {
                let expected: f32 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
                assert_eq!(made[at * outputs + n], expected);
            }
        }
    }

    #[test]
    fn a_product_lands_in_its_window_with_bias_and_what_was_there() {
        let (inputs, outputs, stride) = (5, 70, 100);
        for count in [1, 2, 6, 200, 400] {
            let weights: Vec<f32> = (0..inputs * outputs)
                .map(|i| (i % 7) as f32 - 3.0)
                .collect();
            let x: Vec<f32> = (0..count * inputs).map(|i| (i % 5) as f32 - 2.0).collect();
            let bias: Vec<f32> = (0..outputs).map(|i| i as f32).collect();
            let layer = Dense::from_f32(&weights, inputs);
            let rows = Rows::new(&x, count, inputs);
            for finish in [
                Finish::Store,
                Finish::Add,
                Finish::Multiply,
                Finish::Activate(Activation::Relu),
            ] {
                let mut out = vec![1000.0; count * stride];
                apply(
                    &layer,
                    Some(&bias),
                    rows,
                    Target::at(&mut out, stride, 20),
                    finish,
                );
                for (r, out) in out.chunks_exact(stride).enumerate() {
                    assert!(out[..20].iter().chain(&out[90..]).all(|&v| v == 1000.0));
                    for n in 0..outputs {
                        let product: f32 = (0..inputs)
                            .map(|k| x[r * inputs + k] * weights[n * inputs + k])
                            .sum();
                        let expected = match finish {
                            Finish::Store => product + bias[n],
                            Finish::Add => product + bias[n] + 1000.0,
                            Finish::Multiply => (product + bias[n]) * 1000.0,
                            Finish::Activate(_) => (product + bias[n]).max(0.0),
                        };
                        assert_eq!(out[20 + n], expected);
                    }
                }
            }
        }
    }
}
