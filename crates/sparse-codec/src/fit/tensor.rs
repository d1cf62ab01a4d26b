//! One tensor's scales, given the tables: of the tensor, its segments and its columns.

use crate::context::{Contexts, split};
use crate::score::{BUCKETS, CANDIDATES, CENTRE, Census, Scorer, best, bucket};
use crate::simd::vectorised;
use crate::{Layout, Word};

/// Segments that a round looks at where a tensor has so many.
const LEAST_RUNS: usize = 16;
/// Columns are modelled where this many sampled weights stand in each.
const MIN_ROWS: usize = 4;
/// What a column's offset costs in 1/32 bits, times its square. The few sampled weights of a
/// column say little of the others: without this, offsets follow the noise.
const COLUMN_PRIOR: i32 = 64;
/// Scales of rows and columns stay this near their tensor's, in quarter octaves.
pub(crate) const REACH: i32 = 60;

#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) width: usize,
    pub(super) segment: usize,
    /// Weights in the tensor for each one sampled.
    pub(super) share: f64,
    pub(super) runs: Vec<Run>,
    pub(super) base: i32,
    pub(super) columns: Vec<i8>,
}

/// A sampled segment.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) column: usize,
    pub(super) exponents: Vec<u8>,
    pub(super) steps: Vec<i32>,
    pub(super) buckets: Vec<u8>,
    pub(super) scale: i32,
}

/// The offset from the current one that suits a column.
fn best_column(costs: &[i32; CANDIDATES], column: i32) -> i32 {
    (0..CANDIDATES)
        .map(|i| {
            let offset = i as i32 - CENTRE as i32;
            (costs[i] + COLUMN_PRIOR * (column + offset).pow(2), offset)
        })
        .min()
        .map_or(0, |best| best.1)
}

vectorised! {
    pub(super) fn measure<W: Word>(layout: Layout, base: &[W], fine: &[W], run: &mut Run) {
        let (mantissa, shift) = (layout.stored_mantissa(), layout.shift());
        for (exponent, &word) in run.exponents.iter_mut().zip(base) {
            *exponent = word.exponent(mantissa) as u8;
        }
        for ((step, &b), &f) in run.steps.iter_mut().zip(base).zip(fine) {
            *step = b.steps_to(f, shift);
        }
        for (class, &step) in run.buckets.iter_mut().zip(&run.steps) {
            *class = bucket(step);
        }
    }
}

vectorised! {
    fn fill_plain(scale: i16, top: i16, exponents: &[u8], out: &mut [u8]) {
        for (out, &e) in out.iter_mut().zip(exponents) {
            *out = (scale - 4 * i16::from(e)).clamp(0, top) as u8;
        }
    }
}

vectorised! {
    fn fill_offset(scale: i16, top: i16, exponents: &[u8], columns: &[i8], out: &mut [u8]) {
        for ((out, &e), &column) in out.iter_mut().zip(exponents).zip(columns) {
            *out = (scale + i16::from(column) - 4 * i16::from(e)).clamp(0, top) as u8;
        }
    }
}

impl Tensor {
    /// The one scale that suits the tensor best under the prior.
    pub(super) fn start(&mut self, contexts: Contexts, prior: &[[f32; BUCKETS]]) {
        let mut seen = vec![[0u32; BUCKETS]; 256];
        for run in &self.runs {
            for (&e, &b) in run.exponents.iter().zip(&run.buckets) {
                seen[usize::from(e)][usize::from(b)] += 1;
            }
        }
        let seen: Vec<(i32, usize, f32)> = seen
            .iter()
            .enumerate()
            .flat_map(|(e, row)| {
                row.iter()
                    .enumerate()
                    .filter(|&(_, &n)| n > 0)
                    .map(move |(b, &n)| (e as i32, b, n as f32))
            })
            .collect();
        let top = contexts.count() as i32 - 1;
        let cost = |scale: i32| -> f32 {
            seen.iter()
                .map(|&(e, b, n)| {
                    let context = (scale - 4 * e - contexts.expected(0)).clamp(0, top);
                    n * prior[context as usize][b]
                })
                .sum()
        };
        let (Some(low), Some(high)) = (
            seen.iter().map(|s| s.0).min(),
            seen.iter().map(|s| s.0).max(),
        ) else {
            return;
        };
        let search = |range: std::ops::RangeInclusive<i32>, step: usize| {
            range
                .step_by(step)
                .map(|scale| (cost(scale), scale))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .map_or(0, |best| best.1)
        };
        let coarse = search(
            4 * low + contexts.expected(0)..=4 * high + contexts.expected(top as usize),
            8,
        );
        self.base = search(coarse - 7..=coarse + 7, 2);
    }

    /// Calls `f` with the contexts of every run.
    fn each_run(
        &mut self,
        contexts: Contexts,
        stride: usize,
        fresh: &mut Vec<u8>,
        mut f: impl FnMut(&mut Run, &mut [u8], &dyn Fn(&Run, &mut [u8])),
    ) {
        let top = contexts.count() as i16 - 1;
        let (base, columns, width) = (self.base, &self.columns, self.width);
        let fill = |run: &Run, out: &mut [u8]| {
            let scale = (base + run.scale - contexts.expected(0)) as i16;
            if columns.is_empty() {
                return fill_plain(scale, top, &run.exponents, out);
            }
            let (mut at, mut done) = (run.column, 0);
            while done < out.len() {
                let end = (done + width - at).min(out.len());
                let here = &run.exponents[done..end];
                fill_offset(scale, top, here, &columns[at..], &mut out[done..end]);
                (at, done) = (0, end);
            }
        };
        let stride = stride.min(self.runs.len() / LEAST_RUNS).max(1);
        for run in self.runs.iter_mut().step_by(stride) {
            fresh.resize(run.steps.len(), 0);
            fill(run, fresh);
            f(run, fresh, &fill);
        }
    }

    /// Moves the scale of each run, then with `columns` of each column, to where it costs least.
    pub(super) fn refine(
        &mut self,
        contexts: Contexts,
        scorer: &Scorer,
        columns: bool,
        stride: usize,
        fresh: &mut Vec<u8>,
    ) {
        let width = self.width;
        let sampled: usize = self.runs.iter().map(|r| r.steps.len()).sum();
        let by_column = columns && sampled >= MIN_ROWS * width && width > 1;
        let mut sums = vec![[0i32; CANDIDATES]; if by_column { width } else { 0 }];
        let mut previous = 0;
        self.each_run(contexts, stride, fresh, |run, now, fill| {
            let costs = scorer.run(now, &run.buckets);
            run.scale = (run.scale + best(&costs, run.scale - previous)).clamp(-REACH, REACH);
            previous = run.scale;
            if by_column {
                fill(run, now);
                let mut at = run.column;
                let mut done = 0;
                while done < now.len() {
                    let len = (width - at).min(now.len() - done);
                    scorer.columns(
                        &now[done..done + len],
                        &run.buckets[done..done + len],
                        &mut sums[at..at + len],
                    );
                    done += len;
                    at = 0;
                }
            }
        });
        if by_column {
            self.move_columns(&sums);
        }
    }

    fn move_columns(&mut self, sums: &[[i32; CANDIDATES]]) {
        let mut gain = 0f64;
        let old = if self.columns.is_empty() {
            vec![0; self.width]
        } else {
            std::mem::take(&mut self.columns)
        };
        let moved: Vec<i8> = old
            .iter()
            .zip(sums)
            .map(|(&column, costs)| {
                let offset = best_column(costs, i32::from(column));
                gain -= f64::from(costs[(offset + CENTRE as i32) as usize]);
                (i32::from(column) + offset).clamp(-REACH, REACH) as i8
            })
            .collect();
        // About three bits a column, in 1/32 bits.
        let price = 96.0 * moved.len() as f64;
        let kept = old.iter().any(|&c| c != 0);
        if kept || gain * self.share > price {
            self.columns = moved;
        }
    }

    /// How many of the segments sampled should share a scale: where little changes, a scale for
    /// each costs more than it saves.
    pub(super) fn stretch(&self) -> usize {
        let (mut all, mut changed) = (0, 0);
        for run in &self.runs {
            all += run.buckets.len();
            changed += run.buckets.iter().filter(|&&b| b != 0).count();
        }
        match changed {
            _ if changed * 64 < all => 16,
            _ if changed * 12 < all => 4,
            _ => 1,
        }
    }

    pub(super) fn count(
        &mut self,
        contexts: Contexts,
        census: &mut Census,
        stride: usize,
        fresh: &mut Vec<u8>,
    ) {
        self.each_run(contexts, stride, fresh, |run, now, _| {
            census.add(now, &run.buckets)
        });
    }

    pub(super) fn count_symbols(
        &mut self,
        contexts: Contexts,
        counts: &mut [Vec<[f64; 256]>; 2],
        fresh: &mut Vec<u8>,
    ) {
        let share = self.share;
        let [first, second] = counts;
        let mut symbols = Vec::new();
        self.each_run(contexts, 1, fresh, |run, now, _| {
            symbols.resize(now.len(), 0);
            symbols_of(contexts, now, &run.steps, &mut symbols);
            let (pairs, rest) = now.as_chunks::<2>();
            let (pair_symbols, rest_symbols) = symbols.as_chunks::<2>();
            for (contexts, symbols) in pairs.iter().zip(pair_symbols) {
                first[usize::from(contexts[0])][usize::from(symbols[0])] += share;
                second[usize::from(contexts[1])][usize::from(symbols[1])] += share;
            }
            for (&context, &symbol) in rest.iter().zip(rest_symbols) {
                first[usize::from(context)][usize::from(symbol)] += share;
            }
        });
    }
}

vectorised! {
    fn symbols_of(rule: Contexts, contexts: &[u8], steps: &[i32], symbols: &mut [u8]) {
        for ((symbol, &context), &steps) in symbols.iter_mut().zip(contexts).zip(steps) {
            *symbol = split(steps, rule.low_bits(context)).0;
        }
    }
}
