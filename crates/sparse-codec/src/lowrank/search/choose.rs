//! Integers for the factors, of the precision that costs least.

use super::{SAMPLE, spread};
use crate::lowrank::linear::Vectors;
use crate::lowrank::view::View;
use crate::lowrank::{EXPONENTS, LowRank, Panels};
use crate::score::bucket;
use crate::simd::vectorised;
use crate::{Layout, Word};

/// Weights that precisions are compared on.
const SCAN: usize = 1 << 15;

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
                    .map(|&(k, scale, _)| nearest(self.left.vector(k)[row] * scale)),
            );
        }
        let right = kept
            .iter()
            .flat_map(|&(k, _, scale)| self.right.vector(k).iter().map(move |x| nearest(x * scale)))
            .collect();
        let matrix = LowRank {
            rows,
            cols,
            rounded,
            exponents,
            left,
            right,
            panels: Panels::default(),
        };
        Some((matrix, bits))
    }
}

/// The nearest integer, ties to even, of a number well below 2^51: by two additions instead of a
/// call.
fn nearest(x: f64) -> i32 {
    const SHIFT: f64 = 1.5 * (1u64 << 52) as f64;
    (x + SHIFT - SHIFT) as i32
}

/// About the entropy of a Gaussian of this deviation, rounded to integers.
fn gaussian_bits(deviation: f64) -> f64 {
    0.5 * (1.0 + 17.08 * deviation * deviation).log2()
}

/// The precision that makes factors and residual smallest; `None` where a plain delta is smaller.
pub(super) fn choose<W: Word>(
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
            rounded: matrix.rounded,
            exponents: matrix.exponents.clone(),
            right: matrix.right.clone(),
            panels: Panels::default(),
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
