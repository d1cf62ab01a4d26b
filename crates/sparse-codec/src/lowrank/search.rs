//! Finds the factors: a probe, a truncated singular value decomposition, weighted least squares,
//! and integers of the precision that costs least.
//!
//! A stored word gives the change to within half a representable step, and steps differ a
//! thousandfold between the large and the small weights of a matrix: weighted by step, the small
//! ones pin the factors down far better than an unweighted decomposition can.

use super::linear::{Vectors, singular, singular_of_half};
use super::view::{Buffers, View, combine, dots, lowest, subtract};
use super::{EXPONENTS, LowRank, MAX_RANK, panels};
use crate::score::bucket;
use crate::simd::vectorised;
use crate::{Layout, Word};

/// Sides below this are not worth factors.
const LEAST_SIDE: usize = 32;
/// Larger matrices would take too much memory and time.
const MOST_WEIGHTS: usize = 1 << 26;
/// Weights that costs are measured on.
const SAMPLE: usize = 1 << 17;
/// Weights that precisions are compared on.
const SCAN: usize = 1 << 15;
/// Sides of the sample that the probe looks at.
const PROBE: [usize; 2] = [192, 768];
/// Vectors that the decomposition starts with, the next where the rank is not below them.
const WIDTHS: [usize; 3] = [24, 80, 144];
/// A singular value stands out of rounding noise where it is this many times the largest that
/// noise would have if it were the same everywhere.
const CLIFF: f64 = 1.25;
/// A singular value between that and this many times the noise counts only above the largest gap.
const DOUBTFUL: f64 = 2.5;
/// Share of the energy that single precision may lose in a decomposition.
const ROUNDING: f64 = 1e-6;
/// Rounds of weighted least squares: steps below this many median steps count no more than those
/// of this size, and whether words whose change is explained already have no say. (They keep theirs
/// in 32-bit formats, where the merge's own arithmetic is no more exact than the step.)
const ROUNDS: [(f32, bool); 7] = [
    (0.3, false),
    (0.1, false),
    (0.05, false),
    (0.03, false),
    (0.03, false),
    (0.03, true),
    (0.03, true),
];
/// Coarsest precision tried for changes that are not low-rank, in half octaves of a median step.
const COARSEST: i32 = -16;
/// Steps of conjugate gradients in each round.
const STEPS: usize = 3;

pub(super) fn find<W: Word>(
    layout: Layout,
    rows: usize,
    cols: usize,
    base: &[W],
    fine: &[W],
) -> Option<LowRank> {
    let view = view_of(layout, rows, cols, base, fine)?;
    if !probe(&view) {
        return None;
    }
    let flipped = Flipped::of(&view);
    let turned = flipped.view(&view);
    let (mut left, mut right) = decompose_known(&view, &turned)?;
    refine(&view, &turned, &mut left, &mut right);
    let values = singular(&mut left, &mut right);
    choose(&view, values, left, right, 0)
}

/// The matrix of at most `most` components that saves most.
pub(super) fn fit<W: Word>(
    layout: Layout,
    rows: usize,
    cols: usize,
    base: &[W],
    fine: &[W],
    most: usize,
) -> Option<LowRank> {
    let view = view_of(layout, rows, cols, base, fine)?;
    let most = most.min(rows.min(cols) / 4).min(MAX_RANK);
    let (energy, noise) = energies(&view);
    if most == 0 || energy < noise {
        return None;
    }
    let flipped = Flipped::of(&view);
    let turned = flipped.view(&view);
    let found = decompose(&view, &turned, most + most / 4 + 2, 1);
    let (mut left, mut right) = (found.left, found.right);
    left.truncate(most);
    right.truncate(most);
    let mut values = found.values;
    values.truncate(most);
    choose(&view, values, left, right, COARSEST)
}

/// The matrices as one, where they are of a kind that factors can be found for.
fn view_of<'a, W: Word>(
    layout: Layout,
    rows: usize,
    cols: usize,
    base: &'a [W],
    fine: &'a [W],
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

    fn view(&self, view: &View<'_, W>) -> View<'_, W> {
        View {
            layout: view.layout,
            rows: view.cols,
            cols: view.rows,
            base: &self.base,
            fine: &self.fine,
            unit: view.unit,
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

/// A truncated singular value decomposition of the changes.
struct Decomposition {
    values: Vec<f64>,
    left: Vectors,
    right: Vectors,
}

/// Randomised subspace iteration (Halko, Martinsson and Tropp 2011).
fn decompose<W: Word>(
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

/// Energy of the changes, and of rounding noise among them.
fn energies<W: Word>(view: &View<'_, W>) -> (f64, f64) {
    let mut buffers = Buffers::new(view.cols);
    let (mut energy, mut noise) = (0.0, 0.0);
    for row in 0..view.rows {
        view.load(row, &mut buffers);
        for (&change, &step) in buffers.change.iter().zip(&buffers.step) {
            energy += change * change;
            noise += if change == 0.0 && step > 1e9 {
                0.0
            } else {
                f64::from(step) * f64::from(step) / 12.0
            };
        }
    }
    (energy, noise)
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

/// The components that stand out of the noise; the right vectors hold the singular values.
fn decompose_known<W: Word>(
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

fn scale(vectors: &mut Vectors, factors: &[f64]) {
    for (vector, factor) in vectors.data.chunks_exact_mut(vectors.len).zip(factors) {
        for x in vector {
            *x *= factor;
        }
    }
}

/// Alternates between the sides. Before and after, `left` is orthonormal and `right` is not.
fn refine<W: Word>(
    view: &View<'_, W>,
    turned: &View<'_, W>,
    left: &mut Vectors,
    right: &mut Vectors,
) {
    for (floor, hinge) in ROUNDS {
        let hinge = hinge && view.layout.bits() == 16;
        solve(turned, left, right, floor, hinge);
        let values = singular(left, right);
        scale(left, &values);
        solve(view, right, left, floor, hinge);
        let values = singular(left, right);
        scale(right, &values);
    }
}

/// Moves `moving`, a vector of numbers for each row of the view, towards the least squares
/// solution given `fixed`, which is orthonormal.
fn solve<W: Word>(
    view: &View<'_, W>,
    fixed: &Vectors,
    moving: &mut Vectors,
    floor: f32,
    hinge: bool,
) {
    let rank = fixed.rank;
    let single = fixed.single();
    let single_panels = panels(&single, fixed.len);
    let double_panels = panels(&fixed.data, fixed.len);
    let mut buffers = Buffers::new(view.cols);
    let mut system = System::new(rank);
    let mut coefficients = vec![0.0; rank];
    for row in 0..view.rows {
        view.load(row, &mut buffers);
        for (k, coefficient) in coefficients.iter_mut().enumerate() {
            *coefficient = moving.data[k * view.rows + row];
        }
        subtract(&coefficients, &double_panels, &mut buffers.change);
        let words = buffers.change.iter().zip(&buffers.step);
        for ((rest, weight), (&change, &step)) in
            buffers.rest.iter_mut().zip(&mut buffers.weight).zip(words)
        {
            *weight = 1.0 / (step * step + floor * floor);
            let change = change as f32;
            *rest = if hinge {
                1.7 * (change - change.clamp(-0.5 * step, 0.5 * step))
            } else {
                change
            };
        }
        system.solve(&single, &single_panels, &mut buffers);
        for (k, &x) in system.solution.iter().enumerate() {
            moving.data[k * view.rows + row] += f64::from(x);
        }
    }
}

/// Conjugate gradients for one row.
struct System {
    solution: Vec<f32>,
    rest: Vec<f32>,
    direction: Vec<f32>,
    image: Vec<f32>,
}

impl System {
    fn new(rank: usize) -> Self {
        Self {
            solution: vec![0.0; rank],
            rest: vec![0.0; rank],
            direction: vec![0.0; rank],
            image: vec![0.0; rank],
        }
    }

    /// Minimises the weighted squares of `buffers.rest` less the vectors' combination.
    fn solve(&mut self, vectors: &[f32], panels: &[f32], buffers: &mut Buffers) {
        for (image, (x, w)) in buffers
            .image
            .iter_mut()
            .zip(buffers.rest.iter().zip(&buffers.weight))
        {
            *image = x * w;
        }
        dots(&buffers.image, vectors, &mut self.rest);
        self.direction.copy_from_slice(&self.rest);
        self.solution.fill(0.0);
        let mut norm = product(&self.rest, &self.rest);
        for _ in 0..STEPS {
            combine(&self.direction, panels, &mut buffers.image);
            for (image, w) in buffers.image.iter_mut().zip(&buffers.weight) {
                *image *= w;
            }
            dots(&buffers.image, vectors, &mut self.image);
            let curvature = product(&self.direction, &self.image);
            if curvature <= 0.0 || norm <= 0.0 {
                return;
            }
            let length = norm / curvature;
            for k in 0..self.rest.len() {
                self.solution[k] += length * self.direction[k];
                self.rest[k] -= length * self.image[k];
            }
            let next = product(&self.rest, &self.rest);
            for (direction, rest) in self.direction.iter_mut().zip(&self.rest) {
                *direction = rest + next / norm * *direction;
            }
            norm = next;
        }
    }
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Integers for real factors.
struct Quantiser {
    values: Vec<f64>,
    left: Vectors,
    right: Vectors,
    unit: i32,
}

impl Quantiser {
    /// The matrix with an error of about `2^-precision` median steps from each component, and
    /// about how many bits its factors take.
    ///
    /// For a given error, bits are fewest where all components contribute the same: a factor's
    /// levels are proportional to its component's singular value.
    fn quantise(&self, precision: f64, rounded: bool) -> Option<(LowRank, f64)> {
        let (rows, cols) = (self.left.len, self.right.len);
        let (m, n) = (rows as f64, cols as f64);
        let mut kept = Vec::new();
        let mut exponents = Vec::new();
        let mut bits = 0.0;
        for (k, &value) in self.values.iter().enumerate() {
            let size = value / (m * n).sqrt();
            let levels = size * precision.exp2();
            let wanted = (size / (levels * levels * (m + n) / (2.0 * (m * n).sqrt()))).log2();
            let exponent = (wanted + f64::from(self.unit)).round() as i32;
            if levels < 0.7 || !wanted.is_finite() || !EXPONENTS.contains(&exponent) {
                continue;
            }
            let off = (wanted + f64::from(self.unit) - f64::from(exponent)) / 2.0;
            let of_left = levels * ((m + n) / (2.0 * m)).sqrt() * off.exp2();
            let of_right = levels * ((m + n) / (2.0 * n)).sqrt() * off.exp2();
            bits += m * gaussian_bits(of_left) + n * gaussian_bits(of_right);
            kept.push((k, of_left * m.sqrt(), of_right * n.sqrt()));
            exponents.push(exponent);
        }
        if kept.is_empty() {
            return None;
        }
        let mut left = Vec::with_capacity(rows * kept.len());
        for row in 0..rows {
            left.extend(
                kept.iter()
                    .map(|&(k, scale, _)| (self.left.vector(k)[row] * scale).round() as i32),
            );
        }
        let right = kept
            .iter()
            .flat_map(|&(k, _, scale)| {
                self.right
                    .vector(k)
                    .iter()
                    .map(move |x| (x * scale).round() as i32)
            })
            .collect();
        let matrix = LowRank {
            rows,
            cols,
            rounded,
            exponents,
            left,
            right,
        };
        Some((matrix, bits))
    }
}

/// About the entropy of a Gaussian of this deviation, rounded to integers.
fn gaussian_bits(deviation: f64) -> f64 {
    0.5 * (1.0 + 17.08 * deviation * deviation).log2()
}

/// The precision that makes factors and residual smallest; `None` where a plain delta is smaller.
fn choose<W: Word>(
    view: &View<'_, W>,
    values: Vec<f64>,
    left: Vectors,
    right: Vectors,
    coarsest: i32,
) -> Option<LowRank> {
    let quantiser = Quantiser {
        values,
        left,
        right,
        unit: view.unit,
    };
    let (mut coarse, mut fine) = (Sampled::of(view, SCAN), Sampled::of(view, SAMPLE));
    let mut scan = |rounded: bool, range: std::ops::Range<i32>| {
        let mut best = (f64::INFINITY, 0);
        let (mut worse, mut last) = (0, f64::INFINITY);
        for half in range {
            let Some((matrix, bits)) = quantiser.quantise(f64::from(half) * 0.5, rounded) else {
                continue;
            };
            let total = bits + coarse.bits(view.layout, Some(&matrix));
            worse = if total > last { worse + 1 } else { 0 };
            last = total;
            if total < best.0 {
                best = (total, half);
            }
            if worse == 3 {
                break;
            }
        }
        best
    };
    let plain = scan(false, coarsest..60);
    let alone = if coarsest < 0 {
        // Not a merge: rounding the change alone matters little.
        scan(true, plain.1 - 1..plain.1 + 2)
    } else {
        scan(true, coarsest..60)
    };
    let (rounded, half) = if alone.0 < plain.0 {
        (true, alone.1)
    } else {
        (false, plain.1)
    };
    let (matrix, bits) = quantiser.quantise(f64::from(half) * 0.5, rounded)?;
    let total = bits + fine.bits(view.layout, Some(&matrix));
    (total < 0.97 * fine.bits(view.layout, None)).then_some(matrix)
}

/// Rows of a view that costs are measured on.
struct Sampled<W> {
    rows: Vec<usize>,
    cols: usize,
    /// Rows of the view for each of these.
    share: f64,
    base: Vec<W>,
    fine: Vec<W>,
    predicted: Vec<W>,
}

impl<W: Word> Sampled<W> {
    /// About `weights` of them, but 16 rows at least.
    fn of(view: &View<'_, W>, weights: usize) -> Self {
        let rows = spread(view.rows, (weights / view.cols).max(16));
        let gather = |words: &[W]| -> Vec<W> {
            rows.iter()
                .flat_map(|&row| &words[row * view.cols..][..view.cols])
                .copied()
                .collect()
        };
        let base = gather(view.base);
        Self {
            cols: view.cols,
            share: view.rows as f64 / rows.len() as f64,
            fine: gather(view.fine),
            predicted: vec![W::default(); base.len()],
            base,
            rows,
        }
    }

    /// About what a delta of the whole view costs.
    fn bits(&mut self, layout: Layout, matrix: Option<&LowRank>) -> f64 {
        let mut cost = Cost::new();
        let Some(matrix) = matrix else {
            cost.add(layout, &self.base, &self.fine);
            return cost.bits() * self.share;
        };
        let rank = matrix.rank();
        let here = LowRank {
            rows: self.rows.len(),
            cols: self.cols,
            left: self
                .rows
                .iter()
                .flat_map(|&row| &matrix.left[row * rank..][..rank])
                .copied()
                .collect(),
            ..matrix.clone()
        };
        here.predict(layout, 0, &self.base, &mut self.predicted);
        cost.add(layout, &self.predicted, &self.fine);
        cost.bits() * self.share
    }
}

/// About what a delta costs: the entropy of the changes' classes given the base's exponent.
struct Cost {
    seen: Vec<[u32; 128]>,
    low: f64,
}

impl Cost {
    fn new() -> Self {
        Self {
            seen: vec![[0; 128]; 256],
            low: 0.0,
        }
    }

    fn add<W: Word>(&mut self, layout: Layout, base: &[W], fine: &[W]) {
        let mut places = [0u16; 1024];
        for (base, fine) in base.chunks(places.len()).zip(fine.chunks(places.len())) {
            let places = &mut places[..base.len()];
            self.low += f64::from(classify(layout, base, fine, places)) / 2.0;
            for &place in &*places {
                self.seen[usize::from(place >> 7)][usize::from(place & 127)] += 1;
            }
        }
    }

    fn bits(&self) -> f64 {
        let coded: f64 = self
            .seen
            .iter()
            .map(|row| {
                let total: f64 = row.iter().map(|&n| f64::from(n)).sum();
                row.iter()
                    .filter(|&&n| n > 0)
                    .map(|&n| f64::from(n) * (total / f64::from(n)).log2())
                    .sum::<f64>()
            })
            .sum();
        coded + self.low
    }
}

vectorised! {
    /// Exponent and class of each change; returns twice the low bits that the classes leave open.
    fn classify<W: Word>(layout: Layout, base: &[W], fine: &[W], places: &mut [u16]) -> u32 {
        let (mantissa, shift) = (layout.stored_mantissa(), layout.shift());
        let mut low = 0u32;
        for (place, (&base, &fine)) in places.iter_mut().zip(base.iter().zip(fine)) {
            let steps = base.steps_to(fine, shift);
            let class = u16::from(bucket(steps));
            let sign = u16::from(steps < 0) << 6;
            let exponent = (base.exponent(mantissa) & 0xff) as u16;
            *place = exponent << 7 | sign | class.min(63);
            low += u32::from(class.saturating_sub(6));
        }
        low
    }
}
