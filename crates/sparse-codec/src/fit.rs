//! Fits scales and tables to a sample of weights.

mod merge;
mod tensor;

use crate::context::Contexts;
use crate::ranks::CODES;
use crate::score::{BUCKETS, Census, Scorer, priors};
use crate::tables::TableSet;
use crate::{Layout, Scales, Word};
use merge::merge;
pub(crate) use tensor::REACH;
use tensor::{Run, Tensor, measure};

/// Rounds of scales given tables, tables given scales: each looks at one in so many segments.
const STRIDES: [usize; 3] = [4, 4, 1];

/// Collects sampled weights of the tensors that will share one table set.
#[derive(Debug)]
pub struct Fitter {
    layout: Layout,
    columns: bool,
    ranked: bool,
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
    pub(crate) ranked: bool,
}

impl Fitter {
    /// For weights of one layout.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            columns: true,
            ranked: false,
            tensors: Vec::new(),
        }
    }

    /// With no scales of columns: half a percent larger on ordinary fine-tunes, and coded and rebuilt
    /// a tenth faster.
    #[must_use]
    pub fn without_columns(mut self) -> Self {
        self.columns = false;
        self
    }

    /// With differences of 16-bit words in rank codes, where these take up to an eighth more than an
    /// entropy coder; other words are coded as without. 4 % larger on ordinary fine-tunes, rebuilt 1.4
    /// to 1.6 times as fast where the CPU has AVX-512, twice as fast where it has neither that nor
    /// AVX2, and half as fast with AVX2 alone.
    #[must_use]
    pub fn ranked(mut self) -> Self {
        self.ranked = self.layout.bits() == 16;
        self
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
                tensor.refine(contexts, &scorer, self.columns, stride, &mut fresh);
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
        let most = if self.ranked { CODES } else { counts.len() };
        Fit {
            tables: merge(&counts, share, most),
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
            ranked: self.ranked,
        }
    }
}
