//! Rows of activations times a matrix in panels.

use std::cell::RefCell;
use std::ops::Range;

use super::Level;
use super::panels::{Values, WIDTH};

/// Inputs that are worked on at a time, and panels: their 128 KiB stay in the second-level cache,
/// from which a panel streams while the rows of a tile, at most 12 KiB, stay in the first.
const DEPTH: usize = 512;
const PANELS: usize = 4;

/// Rows of activations: `count` of them, `stride` values apart, of which the first `width` count.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f32],
    count: usize,
    stride: usize,
    width: usize,
}

impl<'a> Rows<'a> {
    /// `count` rows of `width` values, one right after the other.
    ///
    /// # Panics
    /// If `values` is not `count * width` long.
    pub fn new(values: &'a [f32], count: usize, width: usize) -> Rows<'a> {
        assert_eq!(values.len(), count * width, "rows of {width} values");
        Rows::strided(values, count, width, width)
    }

    /// `count` rows of `width` values that begin `stride` values apart.
    ///
    /// # Panics
    /// If `values` ends before the last row does.
    pub fn strided(values: &'a [f32], count: usize, width: usize, stride: usize) -> Rows<'a> {
        assert!(width <= stride && (count == 0 || values.len() >= (count - 1) * stride + width));
        Rows {
            values,
            count,
            stride,
            width,
        }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `at`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, at: usize) -> &'a [f32] {
        assert!(at < self.count);
        &self.values[at * self.stride..][..self.width]
    }

    /// The rows `range` alone.
    ///
    /// # Panics
    /// If they are not among these.
    pub fn slice(&self, range: Range<usize>) -> Rows<'a> {
        assert!(range.start <= range.end && range.end <= self.count);
        let values = if range.is_empty() {
            &[]
        } else {
            &self.values[range.start * self.stride..]
        };
        Rows {
            values,
            count: range.len(),
            ..*self
        }
    }
}

/// `out[r][c]` = row `r` of `x` times output `c` of the panels `panels`: 16 columns a panel, rows
/// `out_stride` values apart. `groups` is how many groups of sixteen lie between the beginnings of
/// two panels: the inputs, or more where panels have room to grow.
///
/// # Panics
/// If a slice is shorter than that needs.
pub(crate) fn multiply(
    level: Level,
    x: Rows<'_>,
    weights: &Values,
    groups: usize,
    panels: Range<usize>,
    out: &mut [f32],
    out_stride: usize,
) {
    assert!(x.width() <= groups && out_stride >= panels.len() * WIDTH);
    assert!(x.count() == 0 || out.len() >= (x.count() - 1) * out_stride + panels.len() * WIDTH);
    match x.count() {
        0 => {}
        1 => multiply_one(level, x.row(0), weights, groups, panels, out),
        _ => multiply_many(level, x, weights, groups, panels, out, out_stride),
    }
}

/// Bound by memory: each weight is widened in a register and used once.
fn multiply_one(
    level: Level,
    x: &[f32],
    weights: &Values,
    groups: usize,
    panels: Range<usize>,
    out: &mut [f32],
) {
    let mut panel = panels.start;
    let mut rest = &mut out[..panels.len() * WIDTH];
    while panel < panels.end {
        let together = (panels.end - panel).min(4);
        let (now, later) = rest.split_at_mut(together * WIDTH);
        match level {
            Level::Scalar => scalar::one_row(x, weights, groups, panel, now),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 | Level::Vnni => {
                super::matmul_avx2::one_row(x, weights, groups, panel, now)
            }
        }
        rest = later;
        panel += together;
    }
}

thread_local! {
    /// Room for widened weights: clearing it anew for each product would cost as much as a few
    /// rows do.
    static WIDENED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Bound by arithmetic: pieces of panels are widened once and used for all rows.
fn multiply_many(
    level: Level,
    x: Rows<'_>,
    weights: &Values,
    groups: usize,
    panels: Range<usize>,
    out: &mut [f32],
    out_stride: usize,
) {
    WIDENED.with_borrow_mut(|widened| {
        for first in panels.clone().step_by(PANELS) {
            let together = first..(first + PANELS).min(panels.end);
            let column = (first - panels.start) * WIDTH;
            let mut start = 0;
            loop {
                let depth = (x.width() - start).min(DEPTH);
                let pieces = pieces(
                    level,
                    weights,
                    groups,
                    together.clone(),
                    start..start + depth,
                    widened,
                );
                for row in (0..x.count).step_by(ROWS) {
                    for (at, piece) in pieces.iter().take(together.len()).enumerate() {
                        let tile = Tile {
                            x: &x.values[row * x.stride + start..],
                            x_stride: x.stride,
                            rows: (x.count - row).min(ROWS),
                            piece,
                            out: &mut out[row * out_stride + column + at * WIDTH..],
                            out_stride,
                            add: start > 0,
                        };
                        match level {
                            Level::Scalar => scalar::tile(tile),
                            #[cfg(target_arch = "x86_64")]
                            Level::Avx2 | Level::Vnni => super::matmul_avx2::tile(tile),
                        }
                    }
                }
                start += depth;
                if start == x.width() {
                    break;
                }
            }
        }
    });
}

/// The weights of the inputs `range` in each of at most [`PANELS`] panels: as they are if they are
/// f32, widened into `widened` otherwise.
fn pieces<'a>(
    level: Level,
    weights: &'a Values,
    groups: usize,
    panels: Range<usize>,
    range: Range<usize>,
    widened: &'a mut Vec<f32>,
) -> [&'a [f32]; PANELS] {
    let groups = |panel: usize| panel * groups + range.start..panel * groups + range.end;
    let mut pieces: [&[f32]; PANELS] = [&[]; PANELS];
    if let Values::F32(values) = weights {
        for (piece, panel) in pieces.iter_mut().zip(panels) {
            let groups = groups(panel);
            *piece = &values[groups.start * WIDTH..groups.end * WIDTH];
        }
        return pieces;
    }
    let size = range.len() * WIDTH;
    if widened.len() < PANELS * size {
        widened.resize(PANELS * size, 0.0);
    }
    let mut rest = &mut widened[..];
    for (piece, panel) in pieces.iter_mut().zip(panels) {
        let (now, later) = std::mem::take(&mut rest).split_at_mut(size);
        weights.widen(level, groups(panel), now);
        (*piece, rest) = (now, later);
    }
    pieces
}

/// Rows that a tile has at most: with sixteen outputs, twelve accumulators of the sixteen
/// registers.
pub(super) const ROWS: usize = 6;

/// At most [`ROWS`] rows times one piece of a panel.
pub(super) struct Tile<'a> {
    /// Begins at the first row's first input of the piece.
    pub x: &'a [f32],
    pub x_stride: usize,
    pub rows: usize,
    /// Groups of sixteen weights, one for each input.
    pub piece: &'a [f32],
    /// Begins at the first row's first output.
    pub out: &'a mut [f32],
    pub out_stride: usize,
    /// Whether to add to what is there.
    pub add: bool,
}

mod scalar {
    use super::{ROWS, Tile, Values, WIDTH};
    use crate::kernels::Level;

    pub fn one_row(x: &[f32], weights: &Values, groups: usize, panel: usize, out: &mut [f32]) {
        let mut widened = [0.0; WIDTH];
        for (at, out) in out.chunks_exact_mut(WIDTH).enumerate() {
            let first = (panel + at) * groups;
            let mut sums = [0.0; WIDTH];
            for (k, &x) in x.iter().enumerate() {
                weights.widen(Level::Scalar, first + k..first + k + 1, &mut widened);
                for (sum, weight) in sums.iter_mut().zip(widened) {
                    *sum += x * weight;
                }
            }
            out.copy_from_slice(&sums);
        }
    }

    pub fn tile(tile: Tile<'_>) {
        let mut sums = [[0.0; WIDTH]; ROWS];
        for (k, group) in tile.piece.chunks_exact(WIDTH).enumerate() {
            for (row, sums) in sums.iter_mut().enumerate().take(tile.rows) {
                let x = tile.x[row * tile.x_stride + k];
                for (sum, weight) in sums.iter_mut().zip(group) {
                    *sum += x * weight;
                }
            }
        }
        for (row, sums) in sums.iter().enumerate().take(tile.rows) {
            let out = &mut tile.out[row * tile.out_stride..][..WIDTH];
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = if tile.add { *out + sum } else { *sum };
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kernels::panels::bf16_slot;
    use sparse_checkpoint::Dtype;

    /// Reproducible values in -1..1 that all three types hold exactly.
    pub(crate) fn noise(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let step = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            ((state >> 8) % 129) as f32 / 64.0 - 1.0
        };
        std::iter::repeat_with(step).take(len).collect()
    }

    fn pack(dtype: Dtype, weights: &[f32], outputs: usize, inputs: usize, groups: usize) -> Values {
        let mut values = Values::zeros(dtype, outputs.div_ceil(WIDTH), groups).unwrap();
        for n in 0..outputs {
            for k in 0..inputs {
                let value = weights[n * inputs + k];
                let group = (n / WIDTH * groups + k) * WIDTH;
                match &mut values {
                    Values::F32(values) => values[group + n % WIDTH] = value,
                    Values::Bf16(values) => {
                        values[group + bf16_slot(n % WIDTH)] =
                            half::bf16::from_f32(value).to_bits();
                    }
                    Values::F16(values) => {
                        values[group + n % WIDTH] = half::f16::from_f32(value).to_bits();
                    }
                }
            }
        }
        values
    }

    #[test]
    fn products_are_those_of_the_definition_at_every_level_type_and_shape() {
        for (rows, inputs, outputs, room) in [
            (1, 1, 1, 0),
            (1, 300, 100, 0),
            (1, 70, 64, 10),
            (2, 257, 16, 0),
            (7, 513, 33, 3),
            (13, 40, 48, 0),
        ] {
            let x = noise(rows * inputs, 1);
            let weights = noise(outputs * inputs, 2);
            let groups = inputs + room;
            let panels = outputs.div_ceil(WIDTH);
            for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
                let packed = pack(dtype, &weights, outputs, inputs, groups);
                for level in Level::available() {
                    let stride = panels * WIDTH + 5;
                    let mut out = vec![f32::NAN; rows * stride];
                    let x = Rows::new(&x, rows, inputs);
                    multiply(level, x, &packed, groups, 0..panels, &mut out, stride);
                    for r in 0..rows {
                        for n in 0..outputs {
                            let expected: f64 = (0..inputs)
                                .map(|k| {
                                    f64::from(x.row(r)[k]) * f64::from(weights[n * inputs + k])
                                })
                                .sum();
                            let found = f64::from(out[r * stride + n]);
                            assert!(
                                (found - expected).abs() < 1e-4,
                                "{dtype} {level:?} {rows}x{inputs}x{outputs}: {found} {expected}"
                            );
                            assert_eq!(packed.at(groups, n, 0), weights[n * inputs]);
                        }
                    }
                }
            }
        }
    }
}
