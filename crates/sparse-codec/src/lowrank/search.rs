//! Finds the factors: a probe, a truncated singular value decomposition, weighted least squares,
//! and integers of the precision that costs least.
//!
//! A stored word gives the change to within half a representable step, and steps differ a
//! thousandfold between the large and the small weights of a matrix: weighted by step, the small
//! ones pin the factors down far better than an unweighted decomposition can.

mod choose;
mod decompose;
mod refine;

use super::linear::singular;
use super::view::{Buffers, View, lowest};
use super::{LowRank, MAX_RANK, Stop};
use crate::simd::vectorised;
use crate::{Layout, Word};
use choose::choose;
use decompose::{WIDTHS, decompose, decompose_known};
use refine::refine;

/// Sides below this are not worth factors.
const LEAST_SIDE: usize = 32;
/// Larger matrices would take too much memory and time.
const MOST_WEIGHTS: usize = 1 << 26;
/// Weights that costs are measured on.
const SAMPLE: usize = 1 << 17;
/// Sides of the sample that the probe looks at.
const PROBE: [usize; 2] = [192, 768];
/// Share of the energy that single precision may lose in a decomposition.
const ROUNDING: f64 = 1e-6;
/// Coarsest precision tried for changes that are not low-rank, in half octaves of a median step.
const COARSEST: i32 = -16;

/// The low-rank matrix that is the change up to rounding.
pub(super) fn find<W: Word>(view: &View<'_, W>) -> Option<LowRank> {
    if !probe(view) {
        return None;
    }
    let flipped = Flipped::of(view);
    let turned = flipped.view(view);
    let (mut left, mut right) = decompose_known(view, &turned)?;
    refine(view, &turned, &mut left, &mut right);
    let values = singular(&mut left, &mut right);
    choose(view, values, left, right, 0)
}

/// The matrix of at most `most` components that saves most.
pub(super) fn fit<W: Word>(view: &View<'_, W>, most: usize) -> Option<LowRank> {
    let most = most.min(view.rows.min(view.cols) / 4).min(MAX_RANK);
    let (energy, noise) = energies(view);
    if most == 0 || energy < noise {
        return None;
    }
    let flipped = Flipped::of(view);
    let turned = flipped.view(view);
    let found = decompose(view, &turned, most + most / 4 + 2, 1);
    let (mut left, mut right) = (found.left, found.right);
    left.truncate(most);
    right.truncate(most);
    let mut values = found.values;
    values.truncate(most);
    choose(view, values, left, right, COARSEST)
}

/// The matrices as one, where they are of a kind that factors can be found for.
pub(super) fn view<'a, W: Word>(
    layout: Layout,
    (rows, cols): (usize, usize),
    base: &'a [W],
    fine: &'a [W],
    stop: Stop<'a>,
) -> Option<View<'a, W>> {
    let len = rows.checked_mul(cols)?;
    let known = matches!(layout.bits(), 16 | 32) && W::BITS == layout.bits();
    let fits = rows.min(cols) >= LEAST_SIDE && len <= MOST_WEIGHTS;
    if !known || !fits || (layout.bits() == 16 && layout.shift() > 0) {
        return None;
    }
    if base.len() != len || fine.len() != len {
        return None;
    }
    Some(View {
        layout,
        rows,
        cols,
        base,
        fine,
        unit: median_step(layout, fine),
        stop,
    })
}

/// Binary exponent of the median representable step.
fn median_step<W: Word>(layout: Layout, fine: &[W]) -> i32 {
    let mut seen = [0usize; 256];
    let stride = (fine.len() / SAMPLE).max(1);
    for word in fine.iter().step_by(stride) {
        seen[(word.exponent(layout.stored_mantissa()) & 0xff) as usize] += 1;
    }
    let half = seen.iter().sum::<usize>() / 2;
    let mut below = 0;
    let median = seen.iter().position(|&n| {
        below += n;
        below > half
    });
    median.unwrap_or(1) as i32 - 1 + lowest(layout)
}

/// A matrix's words column by column.
struct Flipped<W> {
    base: Vec<W>,
    fine: Vec<W>,
}

impl<W: Word> Flipped<W> {
    fn of(view: &View<'_, W>) -> Self {
        Self {
            base: flip(view.rows, view.cols, view.base),
            fine: flip(view.rows, view.cols, view.fine),
        }
    }

    fn view<'a>(&'a self, view: &View<'a, W>) -> View<'a, W> {
        View {
            layout: view.layout,
            rows: view.cols,
            cols: view.rows,
            base: &self.base,
            fine: &self.fine,
            unit: view.unit,
            stop: view.stop,
        }
    }
}

fn flip<W: Word>(rows: usize, cols: usize, words: &[W]) -> Vec<W> {
    let mut out = vec![W::default(); words.len()];
    for first_row in (0..rows).step_by(32) {
        for first_col in (0..cols).step_by(32) {
            for col in first_col..(first_col + 32).min(cols) {
                for row in first_row..(first_row + 32).min(rows) {
                    out[col * rows + row] = words[row * cols + col];
                }
            }
        }
    }
    out
}

/// Energy of the changes, and of rounding noise among them.
fn energies<W: Word>(view: &View<'_, W>) -> (f64, f64) {
    let mut buffers = Buffers::new(view.cols);
    let (mut energy, mut noise) = (0.0, 0.0);
    for row in view.rows() {
        view.load(row, &mut buffers);
        let (of_changes, of_steps) = squares(&buffers.change, &buffers.step);
        energy += of_changes;
        noise += of_steps / 12.0;
    }
    (energy, noise)
}

vectorised! {
    /// Sums of squares of a row's changes, and of its steps but for those of words that are not
    /// finite.
    fn squares(changes: &[f64], steps: &[f32]) -> (f64, f64) {
        let (mut energy, mut noise) = ([0.0; 16], [0.0; 16]);
        for (changes, steps) in changes.chunks(16).zip(steps.chunks(16)) {
            let lanes = energy.iter_mut().zip(&mut noise);
            for ((energy, noise), (&change, &step)) in lanes.zip(changes.iter().zip(steps)) {
                *energy += change * change;
                let step = f64::from(step);
                *noise += if change == 0.0 && step > 1e9 { 0.0 } else { step * step };
            }
        }
        (energy.iter().sum(), noise.iter().sum())
    }
}

/// Whether a sample of rows and columns is low-rank up to rounding noise.
fn probe<W: Word>(view: &View<'_, W>) -> bool {
    let rows = spread(view.rows, PROBE[0]);
    let cols = spread(view.cols, PROBE[1]);
    let gather = |words: &[W]| -> Vec<W> {
        rows.iter()
            .flat_map(|&row| cols.iter().map(move |&col| words[row * view.cols + col]))
            .collect()
    };
    let (base, fine) = (gather(view.base), gather(view.fine));
    let sample = View {
        rows: rows.len(),
        cols: cols.len(),
        base: &base,
        fine: &fine,
        ..*view
    };
    let (energy, noise) = energies(&sample);
    if energy < 1.5 * noise {
        return false;
    }
    let flipped = Flipped::of(&sample);
    let turned = flipped.view(&sample);
    for width in WIDTHS {
        if width * 2 > sample.rows.min(sample.cols) {
            break;
        }
        let found = decompose(&sample, &turned, width, 1);
        let rest = energy - found.values.iter().map(|x| x * x).sum::<f64>();
        // The vectors take their share of the noise too.
        let free =
            (1.0 - width as f64 / sample.rows as f64) * (1.0 - width as f64 / sample.cols as f64);
        if rest <= 1.3 * noise * free + ROUNDING * energy {
            return true;
        }
    }
    false
}

/// At most `count` numbers below `len`, evenly spread but for some jitter.
fn spread(len: usize, count: usize) -> Vec<usize> {
    let count = count.min(len);
    let mut state = 12345u32;
    (0..count)
        .map(|i| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (low, high) = (i * len / count, (i + 1) * len / count);
            low + (state >> 8) as usize % (high - low)
        })
        .collect()
}
