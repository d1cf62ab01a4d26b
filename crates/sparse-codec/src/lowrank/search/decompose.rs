//! Truncated singular value decompositions of the changes, and how many components stand out.

use super::energies;
use crate::Word;
use crate::lowrank::linear::{Vectors, singular_of_half};
use crate::lowrank::view::{Buffers, View};

/// Vectors that the decomposition starts with, the next where the rank is not below them.
pub(super) const WIDTHS: [usize; 3] = [24, 80, 144];
/// A singular value stands out of rounding noise where it is this many times the largest that
/// noise would have if it were the same everywhere.
const CLIFF: f64 = 1.25;
/// A singular value between that and this many times the noise counts only above the largest gap.
const DOUBTFUL: f64 = 2.5;

/// A truncated singular value decomposition of the changes.
pub(super) struct Decomposition {
    pub(super) values: Vec<f64>,
    pub(super) left: Vectors,
    pub(super) right: Vectors,
}

/// Randomised subspace iteration (Halko, Martinsson and Tropp 2011).
pub(super) fn decompose<W: Word>(
    view: &View<'_, W>,
    turned: &View<'_, W>,
    width: usize,
    passes: usize,
) -> Decomposition {
    let mut buffers = Buffers::new(view.cols);
    let mut turned_buffers = Buffers::new(turned.cols);
    let mut right = Vectors::random(view.cols, width);
    for _ in 0..passes {
        let left = view.times(&right, &mut buffers).orthonormal();
        right = turned.times(&left, &mut turned_buffers).orthonormal();
    }
    let mut left = view.times(&right, &mut buffers);
    let values = singular_of_half(&mut left, &mut right);
    Decomposition {
        values,
        left,
        right,
    }
}

/// The components that stand out of the noise; the right vectors hold the singular values.
pub(super) fn decompose_known<W: Word>(
    view: &View<'_, W>,
    turned: &View<'_, W>,
) -> Option<(Vectors, Vectors)> {
    let (_, noise) = energies(view);
    let (rows, cols) = (view.rows as f64, view.cols as f64);
    let edge = (noise / (rows * cols)).sqrt() * (rows.sqrt() + cols.sqrt());
    for width in WIDTHS {
        let width = width.min(view.rows.min(view.cols) / 2);
        let found = decompose(view, turned, width, 2);
        let rank = standing_out(&found.values, edge);
        if rank == 0 {
            return None;
        }
        if rank + 4 <= width {
            let Decomposition {
                values,
                mut left,
                mut right,
            } = found;
            left.truncate(rank);
            right.truncate(rank);
            scale(&mut right, &values);
            return Some((left, right));
        }
    }
    None
}

/// How many singular values stand out of noise whose largest is about `edge`.
fn standing_out(values: &[f64], edge: f64) -> usize {
    let first = values.first().copied().unwrap_or(0.0);
    let edge = edge.max(first * 2e-6);
    let above = |times: f64| values.iter().take_while(|&&x| x > times * edge).count();
    let (certain, most) = (above(DOUBTFUL), above(CLIFF));
    let gap =
        |rank: usize| values[rank - 1] / values.get(rank).map_or(edge, |&x| x.max(edge / 4.0));
    (certain.max(1)..=most)
        .max_by(|&a, &b| gap(a).total_cmp(&gap(b)))
        .unwrap_or(0)
}

pub(super) fn scale(vectors: &mut Vectors, factors: &[f64]) {
    for (vector, factor) in vectors.data.chunks_exact_mut(vectors.len).zip(factors) {
        for x in vector {
            *x *= factor;
        }
    }
}
