//! The triangular factor of a symmetric positive definite matrix.

use std::ops::Range;

use rayon::prelude::*;
use sparse_engine::{Vectorize, vectorized};

/// Columns that are factored before the rows below follow, each on its thread.
const BLOCK: usize = 48;

/// Replaces the symmetric `cols * cols` matrix H by R, upper triangular, with H = R Rᵀ; `false` if
/// H is not positive definite.
pub(crate) fn upper_factor(h: &mut [f32], cols: usize) -> bool {
    // Turned about its other diagonal, H has a lower factor, which turned back is R.
    h.reverse();
    let done = lower_factor(h, cols);
    h.reverse();
    done
}

fn lower_factor(h: &mut [f32], cols: usize) -> bool {
    for start in (0..cols).step_by(BLOCK) {
        let end = (start + BLOCK).min(cols);
        let (above, below) = h.split_at_mut(end * cols);
        for row in start..end {
            let (done, rest) = above.split_at_mut(row * cols);
            let line = &mut rest[..cols];
            vectorized(Solve {
                line,
                above: done,
                columns: start..row,
            });
            let square = line[row] - dot(&line[..row], &line[..row]);
            if !(square > 0.0 && square.is_finite()) {
                return false;
            }
            line[row] = square.sqrt();
            line[row + 1..].fill(0.0);
        }
        let above = &*above;
        below.par_chunks_exact_mut(cols).for_each(|line| {
            vectorized(Solve {
                line,
                above,
                columns: start..end,
            });
        });
    }
    true
}

/// Columns of a line of the lower factor, given those before and the lines of these columns.
struct Solve<'a> {
    line: &'a mut [f32],
    above: &'a [f32],
    columns: Range<usize>,
}

impl Vectorize for Solve<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Solve {
            line,
            above,
            columns,
        } = self;
        for col in columns {
            let other = &above[col * line.len()..][..line.len()];
            line[col] = (line[col] - dot(&line[..col], &other[..col])) / other[col];
        }
    }
}

/// The sum of products, in sixteen lanes so that it vectorizes; always in the same order.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a_lanes, a_rest), (b_lanes, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut lanes = [0.0f32; 16];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_multiplies_back() {
        for cols in [1, 5, 48, 49, 130] {
            let source: Vec<f32> = (0..cols * cols)
                .map(|i| (i * 7919 % 101) as f32 / 50.5 - 1.0)
                .collect();
            let mut h = vec![0.0; cols * cols];
            for i in 0..cols {
                for j in 0..cols {
                    h[i * cols + j] = dot(&source[i * cols..][..cols], &source[j * cols..][..cols]);
                }
                h[i * cols + i] += 1.0;
            }
            let mut r = h.clone();
            assert!(upper_factor(&mut r, cols));
            for i in 0..cols {
                assert!(r[i * cols..i * cols + i].iter().all(|&below| below == 0.0));
                for j in 0..cols {
                    let back = dot(&r[i * cols..][..cols], &r[j * cols..][..cols]);
                    let slack = 1e-3 * (h[i * cols + i] * h[j * cols + j]).sqrt();
                    assert!((back - h[i * cols + j]).abs() <= slack, "{cols}: {i} {j}");
                }
            }
        }
        let mut negative = vec![1.0, 2.0, 2.0, 1.0];
        assert!(!upper_factor(&mut negative, 2));
    }
}
