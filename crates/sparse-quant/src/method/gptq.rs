//! GPTQ: columns are rounded one after another, and those to come make up for the error as far as
//! the inputs' second moments allow.
//!
//! With H = R Rᵀ and R upper triangular, the error of a row is the sum over columns c of
//! (Σ_{i ≤ c} (w_i − q_i) R_ic)², so the best value for column c, given those before, is
//! w_c + Σ_{i < c} (w_i − q_i) R_ic / R_cc. That is what GPTQ computes from the Cholesky factor of
//! H⁻¹, without inverting H.

use rayon::prelude::*;
use sparse_engine::{Vectorize, vectorized};

use super::affine::{Affine, AffineSpec};
use crate::Matrix;
use crate::method::cholesky::upper_factor;

/// The least that is added to the diagonal of H, as a share of its mean.
const DAMPING: f64 = 0.01;
/// Rows that a thread takes at a time, so that R is read once for all of them.
const ROWS: usize = 16;
/// Columns whose errors are spread together.
const BLOCK: usize = 64;

/// A layer that GPTQ could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Singular;

/// In which order columns are rounded. Those that matter most come first, while there are still
/// others to make up for their errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Groups by their most important column, and columns within groups: which columns share a
    /// scale does not change.
    Groups,
    /// All columns: groups are runs of this order, and the file says which column is in which.
    Columns,
}

/// Quantizes a matrix; `gram` is the sum of x xᵀ over its inputs, `[inputs, inputs]`.
///
/// # Errors
/// If the second moments have no Cholesky factor whatever is added to their diagonal.
///
/// # Panics
/// If `gram` is not `cols * cols` long.
pub fn quantize(
    weights: &Matrix,
    gram: &[f32],
    spec: &AffineSpec,
    by: Order,
) -> Result<Affine, Singular> {
    let (rows, cols) = (weights.rows(), weights.cols());
    assert_eq!(gram.len(), cols * cols);
    let group_size = spec.group_in(cols);
    let runs = runs(gram, cols, group_size, by);
    let order: Vec<usize> = runs.iter().flat_map(|run| &run.cols).copied().collect();
    let (factor, dead) = factor(gram, cols, &order)?;
    let importance: Vec<f32> = order
        .iter()
        .enumerate()
        .map(|(at, &col)| importance(gram[col * cols + col], factor[at * cols + at]))
        .collect();
    let groups = cols.div_ceil(group_size);
    let mut made = Affine::blank(rows, cols, spec);
    if by == Order::Columns {
        let mut group_of = vec![0; cols];
        for run in &runs {
            for &col in &run.cols {
                group_of[col] = run.group as u32;
            }
        }
        made.group_of = Some(group_of);
    }
    made.codes
        .par_chunks_mut(ROWS * cols)
        .zip(made.scales.par_chunks_mut(ROWS * groups))
        .zip(made.zeros.par_chunks_mut(ROWS * groups))
        .zip(weights.data().par_chunks(ROWS * cols))
        .for_each(|(((codes, scales), zeros), weights)| {
            let mut chunk: Vec<Row> = weights
                .chunks_exact(cols)
                .map(|row| Row::new(row, &order, &dead))
                .collect();
            vectorized(RoundRows {
                rows: &mut chunk,
                factor: &factor,
                runs: &runs,
                importance: &importance,
                spec,
            });
            for (at, row) in chunk.into_iter().enumerate() {
                let (scales, zeros) = (&mut scales[at * groups..], &mut zeros[at * groups..]);
                for &(group, scale, zero) in &row.parameters {
                    (scales[group], zeros[group]) = (scale, zero);
                }
                let codes = &mut codes[at * cols..][..cols];
                for (&col, &code) in order.iter().zip(&row.codes) {
                    codes[col] = code;
                }
            }
        });
    Ok(made)
}

/// One output on its way, columns in processing order.
struct Row {
    weights: Vec<f32>,
    /// Σ (w_i − q_i) R_ic over the columns that are done.
    carried: Vec<f32>,
    /// w_i − q_i.
    errors: Vec<f32>,
    codes: Vec<u8>,
    /// Group, scale, zero point.
    parameters: Vec<(usize, f32, u8)>,
}

impl Row {
    fn new(row: &[f32], order: &[usize], dead: &[bool]) -> Row {
        let weight = |&col: &usize| if dead[col] { 0.0 } else { row[col] };
        let cols = order.len();
        Row {
            weights: order.iter().map(weight).collect(),
            carried: vec![0.0; cols],
            errors: vec![0.0; cols],
            codes: vec![0; cols],
            parameters: Vec::new(),
        }
    }
}

/// Rounds some outputs, all columns of them.
struct RoundRows<'a> {
    rows: &'a mut [Row],
    factor: &'a [f32],
    runs: &'a [Run],
    importance: &'a [f32],
    spec: &'a AffineSpec,
}

impl Vectorize for RoundRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let RoundRows {
            rows,
            factor,
            runs,
            importance,
            spec,
        } = self;
        let cols = importance.len();
        let mut start = 0;
        for run in runs {
            let end = start + run.cols.len();
            for row in rows.iter_mut() {
                let updated = updated(row, factor, cols, start, end);
                let (scale, zero) = spec.parameters(&updated, Some(&importance[start..end]));
                row.parameters.push((run.group, scale, zero));
            }
            for block in (start..end).step_by(BLOCK) {
                let stop = (block + BLOCK).min(end);
                for row in rows.iter_mut() {
                    let &(_, scale, zero) = row.parameters.last().unwrap_or(&(0, 1.0, 0));
                    round_block(row, factor, cols, block..stop, (scale, zero), spec);
                }
                spread(rows, factor, cols, block..stop);
            }
            start = end;
        }
    }
}

/// What a group's weights should be, given the columns before it, were they not rounded.
#[inline(always)]
fn updated(row: &Row, factor: &[f32], cols: usize, start: usize, end: usize) -> Vec<f32> {
    let mut carried = row.carried[start..end].to_vec();
    let mut updated = row.weights[start..end].to_vec();
    for (within, updated) in updated.iter_mut().enumerate() {
        let line = &factor[(start + within) * cols..][start + within..end];
        let shift = carried[within] / line[0];
        for (carried, r) in carried[within..].iter_mut().zip(line) {
            *carried -= shift * r;
        }
        *updated += shift;
    }
    updated
}

/// Rounds the columns of a block, carrying errors within it.
#[inline(always)]
fn round_block(
    row: &mut Row,
    factor: &[f32],
    cols: usize,
    block: std::ops::Range<usize>,
    (scale, zero): (f32, u8),
    spec: &AffineSpec,
) {
    for at in block.clone() {
        let line = &factor[at * cols..][..block.end];
        let target = row.weights[at] + row.carried[at] / line[at];
        let code = spec.code(target, scale, zero);
        let error = row.weights[at] - scale * (f32::from(code) - f32::from(zero));
        row.codes[at] = code;
        row.errors[at] = error;
        for (carried, r) in row.carried[at..block.end].iter_mut().zip(&line[at..]) {
            *carried += error * r;
        }
    }
}

/// Carries a block's errors to all columns after it, tile by tile so that R stays in cache.
#[inline(always)]
fn spread(rows: &mut [Row], factor: &[f32], cols: usize, block: std::ops::Range<usize>) {
    const TILE: usize = 512;
    for tile in (block.end..cols).step_by(TILE) {
        let tile = tile..(tile + TILE).min(cols);
        for row in rows.iter_mut() {
            let carried = &mut row.carried[tile.clone()];
            // Four lines at a time: a quarter of the loads and stores.
            let mut at = block.start;
            while at + 4 <= block.end {
                let e = [0, 1, 2, 3].map(|i| row.errors[at + i]);
                let lines = [0, 1, 2, 3].map(|i| &factor[(at + i) * cols..][tile.clone()]);
                let [a, b, c, d] = lines;
                let lines = a.iter().zip(b).zip(c).zip(d);
                for (carried, (((a, b), c), d)) in carried.iter_mut().zip(lines) {
                    *carried += e[0] * a + e[1] * b + e[2] * c + e[3] * d;
                }
                at += 4;
            }
            for at in at..block.end {
                let line = &factor[at * cols..][tile.clone()];
                for (carried, r) in carried.iter_mut().zip(line) {
                    *carried += row.errors[at] * r;
                }
            }
        }
    }
}

/// How much the square of a column's error counts when a group's scale is chosen. It costs H_cc
/// where no other column makes up for it, and R_cc² where all that come later do so as well as they
/// can; but they are rounded too. Between the two (their geometric mean) KL came out 2 to 5 % lower on
/// the fixtures than with H_cc, and lower on both models than with R_cc².
fn importance(moment: f32, diagonal: f32) -> f32 {
    moment.sqrt() * diagonal
}

/// Columns that share a scale, in processing order.
struct Run {
    group: usize,
    cols: Vec<usize>,
}

/// All groups in processing order.
fn runs(gram: &[f32], cols: usize, group_size: usize, by: Order) -> Vec<Run> {
    let importance = |col: usize| gram[col * cols + col];
    let falling = |a: &usize, b: &usize| importance(*b).total_cmp(&importance(*a));
    let mut all: Vec<usize> = (0..cols).collect();
    if by == Order::Columns {
        all.sort_by(falling);
    }
    let chunks = all.chunks(group_size).enumerate();
    let mut runs: Vec<Run> = chunks
        .map(|(group, cols)| Run {
            group,
            cols: cols.to_vec(),
        })
        .collect();
    if by == Order::Groups {
        for run in &mut runs {
            run.cols.sort_by(falling);
        }
        runs.sort_by(|a, b| falling(&a.cols[0], &b.cols[0]));
    }
    runs
}

/// R with columns in processing order, and which columns no input ever reaches.
fn factor(gram: &[f32], cols: usize, order: &[usize]) -> Result<(Vec<f32>, Vec<bool>), Singular> {
    let diagonal = |col: usize| f64::from(gram[col * cols + col]);
    let mean = (0..cols).map(diagonal).sum::<f64>() / cols as f64;
    if !mean.is_finite() || mean <= 0.0 {
        return Err(Singular);
    }
    let dead: Vec<bool> = (0..cols).map(|col| diagonal(col) <= 0.0).collect();
    let mut damping = DAMPING;
    while damping <= 1.0 {
        let mut h = vec![0.0f32; cols * cols];
        for (i, &a) in order.iter().enumerate() {
            for (h, &b) in h[i * cols..][..cols].iter_mut().zip(order) {
                *h = gram[a * cols + b];
            }
            h[i * cols + i] += (damping * mean) as f32;
            if dead[a] {
                h[i * cols + i] += mean as f32;
            }
        }
        if upper_factor(&mut h, cols) {
            return Ok((h, dead));
        }
        damping *= 3.0;
    }
    Err(Singular)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::affine::tests::spec;
    use crate::method::rtn;

    /// Inputs that go together in pairs and differ in size, as activations do.
    fn gram(cols: usize) -> Vec<f32> {
        let mut gram = vec![0.0; cols * cols];
        for sample in 0..4 * cols {
            let x: Vec<f32> = (0..cols)
                .map(|col| {
                    let noise = |seed: usize| ((seed * 7919 % 10007) as f32 / 5003.5) - 1.0;
                    let shared = noise(sample * 31 + col / 4);
                    let size = 1.0 + (col % 7) as f32;
                    size * (shared + 0.3 * noise(sample * 57 + col * 131 + 17))
                })
                .collect();
            for i in 0..cols {
                for j in 0..cols {
                    gram[i * cols + j] += x[i] * x[j];
                }
            }
        }
        gram
    }

    fn loss(weights: &Matrix, made: &Affine, gram: &[f32]) -> f64 {
        let (back, cols) = (made.dequantize(), weights.cols());
        let mut loss = 0.0;
        for row in 0..weights.rows() {
            let off: Vec<f32> = weights
                .row(row)
                .iter()
                .zip(back.row(row))
                .map(|(a, b)| a - b)
                .collect();
            for i in 0..cols {
                for j in 0..cols {
                    loss += f64::from(off[i]) * f64::from(off[j]) * f64::from(gram[i * cols + j]);
                }
            }
        }
        loss
    }

    fn weights(rows: usize, cols: usize) -> Matrix {
        let value = |i: usize| ((i * 6151 % 2003) as f32 / 1001.5 - 1.0) * 0.1;
        Matrix::new(rows, cols, (0..rows * cols).map(value).collect()).unwrap()
    }

    #[test]
    fn it_leaves_much_less_error_in_the_outputs_than_rounding() {
        let (weights, gram) = (weights(19, 96), gram(96));
        for group in [32, 40, usize::MAX] {
            for (symmetric, order) in [
                (false, Order::Groups),
                (true, Order::Groups),
                (true, Order::Columns),
            ] {
                let spec = spec(3, group, symmetric);
                let made = quantize(&weights, &gram, &spec, order).unwrap();
                let plain = rtn::quantize(&weights, &spec);
                let (ours, rounding) =
                    (loss(&weights, &made, &gram), loss(&weights, &plain, &gram));
                assert!(
                    ours < 0.7 * rounding,
                    "{group} {symmetric}: {ours} {rounding}"
                );
            }
        }
    }

    #[test]
    fn inputs_that_never_come_cost_nothing_and_no_inputs_are_refused() {
        let (weights, mut gram) = (weights(4, 32), gram(32));
        for i in 0..32 {
            gram[5 * 32 + i] = 0.0;
            gram[i * 32 + 5] = 0.0;
        }
        let made = quantize(&weights, &gram, &spec(4, 32, true), Order::Groups).unwrap();
        assert!(
            made.dequantize()
                .data()
                .iter()
                .all(|value| value.is_finite())
        );
        let nothing = vec![0.0; 32 * 32];
        assert_eq!(
            quantize(&weights, &nothing, &spec(4, 32, true), Order::Groups),
            Err(Singular)
        );
        let nan = vec![f32::NAN; 32 * 32];
        assert_eq!(
            quantize(&weights, &nan, &spec(4, 32, true), Order::Groups),
            Err(Singular)
        );
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        let (weights, gram) = (weights(40, 64), gram(64));
        let with = |threads| {
            crate::pool::with_threads(threads, || {
                quantize(&weights, &gram, &spec(4, 32, true), Order::Groups)
            })
        };
        assert_eq!(with(1), with(3));
    }
}
