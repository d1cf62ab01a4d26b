//! Fits scales and tables to a sample of weights.

use crate::context::{Contexts, ESCAPE, split};
use crate::score::{BUCKETS, CANDIDATES, CENTRE, Census, Scorer, best, bucket, priors};
use crate::simd::vectorised;
use crate::tables::{TableSet, frequencies};
use crate::{Layout, Scales, Word};

/// Rounds of scales given tables, tables given scales: each looks at one in so many segments.
const STRIDES: [usize; 3] = [4, 4, 1];
/// Segments that a round looks at where a tensor has so many.
const LEAST_RUNS: usize = 16;
/// Scales of rows and columns stay this near their tensor's, in quarter octaves.
pub(crate) const REACH: i32 = 60;
/// Columns are modelled where this many sampled weights stand in each.
const MIN_ROWS: usize = 4;
/// What a column's offset costs in 1/32 bits, times its square. The few sampled weights of a
/// column say little of the others: without this, offsets follow the noise.
const COLUMN_PRIOR: i32 = 64;
/// Bits that a table's parameter fitted to a sample costs for each weight that a sampled one
/// stands for: twice the expected excess of 1 / (2 ln 2).
const OVERFIT: f64 = 1.44;

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

/// Collects sampled weights of the tensors that will share one table set.
#[derive(Debug)]
pub struct Fitter {
    layout: Layout,
    tensors: Vec<Tensor>,
}

/// What [`Fitter::fit`] found.
#[derive(Debug)]
pub struct Fit {
    /// The tables.
    pub tables: TableSet,
    /// The scales of each tensor added, in that order.
    pub scales: Vec<Scales>,
    pub(crate) scorer: Scorer,
}

#[derive(Debug)]
struct Tensor {
    width: usize,
    segment: usize,
    /// Weights in the tensor for each one sampled.
    share: f64,
    runs: Vec<Run>,
    base: i32,
    columns: Vec<i8>,
}

/// A sampled segment.
#[derive(Debug)]
struct Run {
    column: usize,
    exponents: Vec<u8>,
    steps: Vec<i32>,
    buckets: Vec<u8>,
    scale: i32,
}

impl Fitter {
    /// For weights of one layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            tensors: Vec::new(),
        }
    }

    /// Adds a sample of a tensor whose rows are `width` weights long and which has `total`
    /// weights: segments of [`Scales::segment_for`] weights, given by the index of their first
    /// weight, the base's words and the fine-tune's.
    pub fn add<'a, W: Word>(
        &mut self,
        width: usize,
        total: u64,
        runs: impl IntoIterator<Item = (usize, &'a [W], &'a [W])>,
    ) {
        let layout = self.layout;
        let runs: Vec<Run> = runs
            .into_iter()
            .map(|(start, base, fine)| {
                let mut run = Run {
                    column: start % width.max(1),
                    exponents: vec![0; base.len()],
                    steps: vec![0; base.len()],
                    buckets: vec![0; base.len()],
                    scale: 0,
                };
                measure(layout, base, fine, &mut run);
                run
            })
            .collect();
        let sampled: usize = runs.iter().map(|r| r.steps.len()).sum();
        self.tensors.push(Tensor {
            width: width.max(1),
            segment: Scales::segment_for(width),
            share: total as f64 / sampled.max(1) as f64,
            runs,
            base: 0,
            columns: Vec::new(),
        });
    }

    /// Finds scales and tables together.
    #[must_use]
    pub fn fit(mut self) -> Fit {
        let contexts = Contexts::new(self.layout);
        let priors = priors(contexts, self.layout.mantissa());
        let mut scorer = Scorer::new(&priors, &Census::new(contexts));
        let prior: Vec<[f32; BUCKETS]> = priors
            .iter()
            .map(|row| row.map(|p| -p.log2() as f32))
            .collect();
        for tensor in &mut self.tensors {
            tensor.start(contexts, &prior);
        }
        let mut fresh = Vec::new();
        for stride in STRIDES {
            let mut census = Census::new(contexts);
            for tensor in &mut self.tensors {
                tensor.refine(contexts, &scorer, stride, &mut fresh);
                tensor.count(contexts, &mut census, stride, &mut fresh);
            }
            scorer = Scorer::new(&priors, &census);
        }
        let (whole, sampled) = self.tensors.iter().fold((0.0, 0.0), |(whole, sampled), t| {
            let here: usize = t.runs.iter().map(|r| r.steps.len()).sum();
            (whole + t.share * here as f64, sampled + here as f64)
        });
        let share = (whole / f64::max(sampled, 1.0)).max(1.0);
        // Weights take turns, so that a count need not wait for the one before it.
        let mut both = [(); 2].map(|()| vec![[0f64; 256]; contexts.count()]);
        for tensor in &mut self.tensors {
            tensor.count_symbols(contexts, &mut both, &mut fresh);
        }
        let [mut counts, second] = both;
        for (count, more) in counts.iter_mut().flatten().zip(second.iter().flatten()) {
            *count += more;
        }
        Fit {
            tables: merge(&counts, share),
            scales: self
                .tensors
                .iter()
                .map(|t| Scales {
                    base: t.base as i16,
                    segment: (t.segment * t.stretch()) as u32,
                    columns: t.columns.clone(),
                })
                .collect(),
            scorer,
        }
    }
}

vectorised! {
    fn measure<W: Word>(layout: Layout, base: &[W], fine: &[W], run: &mut Run) {
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
    fn start(&mut self, contexts: Contexts, prior: &[[f32; BUCKETS]]) {
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

    /// Moves the scale of each run, then of each column, to where it costs least.
    fn refine(&mut self, contexts: Contexts, scorer: &Scorer, stride: usize, fresh: &mut Vec<u8>) {
        let width = self.width;
        let sampled: usize = self.runs.iter().map(|r| r.steps.len()).sum();
        let by_column = sampled >= MIN_ROWS * width && width > 1;
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
    fn stretch(&self) -> usize {
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

    fn count(
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

    fn count_symbols(
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

/// Neighbouring contexts whose tables cost more than they save.
struct Group {
    start: u8,
    counts: [f64; 256],
    bits: f64,
    symmetric: bool,
    share: f64,
}

impl Group {
    fn new(start: u8, counts: [f64; 256], share: f64) -> Self {
        let (bits, symmetric) = bits(&counts, share);
        Self {
            start,
            counts,
            bits,
            symmetric,
            share,
        }
    }

    fn merged(&self, next: &Self) -> Self {
        let mut counts = self.counts;
        for (sum, &more) in counts.iter_mut().zip(&next.counts) {
            *sum += more;
        }
        Self::new(self.start, counts, self.share)
    }
}

/// Bits of the symbols and of their table, and whether a symmetric table is the cheaper one.
fn bits(counts: &[f64; 256], share: f64) -> (f64, bool) {
    let total: f64 = counts.iter().sum();
    if total == 0.0 {
        return (0.0, true);
    }
    let (mut plain, mut mirrored, mut used) = (0.0, 0.0, 0.0);
    for (symbol, &n) in counts.iter().enumerate() {
        if n > 0.0 {
            plain -= n * (n / total).log2();
            let mirror = if (1..=241).contains(&symbol) {
                counts[242 - symbol]
            } else {
                n
            };
            mirrored -= n * ((n + mirror) / 2.0 / total).log2();
            used += 1.0;
        }
    }
    let each = 6.0 + OVERFIT * (share - 1.0);
    let (plain, mirrored) = (
        plain + each * used + 12.0,
        mirrored + 0.5 * each * used + 12.0,
    );
    (plain.min(mirrored), mirrored <= plain)
}

/// One table for each run of contexts, runs joined while that saves bits.
fn merge(counts: &[[f64; 256]], share: f64) -> TableSet {
    let mut groups: Vec<Group> = Vec::new();
    for (context, counts) in counts.iter().enumerate() {
        if counts.iter().any(|&n| n > 0.0) {
            groups.push(Group::new(context as u8, *counts, share));
        }
    }
    let mut joins: Vec<Group> = groups.windows(2).map(|p| p[0].merged(&p[1])).collect();
    loop {
        let saving = |i: usize| groups[i].bits + groups[i + 1].bits - joins[i].bits;
        let Some(i) = (0..joins.len()).max_by(|&a, &b| saving(a).total_cmp(&saving(b))) else {
            break;
        };
        if saving(i) <= 0.0 {
            break;
        }
        groups.remove(i + 1);
        groups[i] = joins.remove(i);
        if i > 0 {
            joins[i - 1] = groups[i - 1].merged(&groups[i]);
        }
        if i < joins.len() {
            joins[i] = groups[i].merged(&groups[i + 1]);
        }
    }
    if let Some(first) = groups.first_mut() {
        first.start = 0;
    } else {
        let mut counts = [0.0; 256];
        counts[usize::from(ESCAPE)] = 1.0;
        groups.push(Group::new(0, counts, share));
    }
    // Contexts that the sample lacks belong to the nearer neighbour.
    for i in 1..groups.len() {
        let last = counts[..usize::from(groups[i].start)]
            .iter()
            .rposition(|c| c.iter().any(|&n| n > 0.0))
            .unwrap_or(0);
        groups[i].start =
            ((last + usize::from(groups[i].start)) / 2 + 1).min(usize::from(groups[i].start)) as u8;
    }
    let tables = groups
        .iter()
        .map(|group| {
            let total: f64 = group.counts.iter().sum();
            let scale = (f64::from(u32::MAX) / 4.0 / total).min(1.0);
            let counts = group.counts.map(|n| (n * scale).ceil() as u32);
            frequencies(&counts, group.symmetric)
        })
        .collect();
    TableSet::from_frequencies(groups.iter().map(|g| g.start).collect(), tables)
}
