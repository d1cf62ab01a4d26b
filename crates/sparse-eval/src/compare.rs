//! What a candidate changes, measured beside its base, window by window.

use rayon::prelude::*;
use sparse_engine::{Model, argmax};

use crate::measure::{Figures, Losses, run, targets};
use crate::protocol::{Plan, Window};
use crate::{Error, Progress};

/// Rows whose logits are held at once, of the base and of one candidate.
const ROWS: usize = 64;

/// A candidate beside its base, over the same tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The candidate's perplexity.
    pub candidate: Figures,
    /// The base's.
    pub base: Figures,
    /// Mean of KL(base || candidate) over scored tokens, in nats.
    pub kl_mean: f64,
    /// Its standard error; a single token has none.
    pub kl_stderr: Option<f64>,
    /// The divergence that 99 % of the tokens stay below.
    pub kl_p99: f64,
    /// Share of scored tokens for which both models hold the same one to be the most likely.
    pub top1_agreement: f64,
    /// Mean of the paired differences of losses: the logarithm of the ratio of perplexities.
    pub ln_ppl_ratio: f64,
    /// Its standard error; a single token has none.
    pub ln_ppl_ratio_stderr: Option<f64>,
}

impl Comparison {
    /// By how many per cent the candidate's perplexity is above the base's.
    pub fn ppl_delta_pct(&self) -> f64 {
        100.0 * (self.candidate.perplexity / self.base.perplexity - 1.0)
    }
}

/// One scored token.
#[derive(Clone, Copy)]
struct Token {
    base_loss: f64,
    candidate_loss: f64,
    divergence: f64,
    agree: bool,
}

/// Measures a candidate against its base.
///
/// # Errors
/// If vocabularies differ, a model fails, or the caller asks to stop.
pub fn compare(
    base: &Model,
    candidate: &Model,
    plan: &Plan,
    progress: &dyn Progress,
) -> Result<Comparison, Error> {
    let mut found = compare_all(base, &[candidate], plan, progress)?;
    // One for each candidate.
    Ok(found.swap_remove(0))
}

/// Measures candidates against the base that they share, which is run once for all of them: each
/// comparison is, to the bit, the one that [`compare`] makes.
///
/// # Errors
/// If vocabularies differ, a model fails, or the caller asks to stop.
pub fn compare_all(
    base: &Model,
    candidates: &[&Model],
    plan: &Plan,
    progress: &dyn Progress,
) -> Result<Vec<Comparison>, Error> {
    let vocabulary = base.config().vocabulary;
    for candidate in candidates {
        let own = candidate.config().vocabulary;
        if own != vocabulary {
            return Err(Error::Incomparable {
                message: format!("vocabularies of {vocabulary} and {own} tokens"),
            });
        }
    }
    let mut base_losses = Losses::default();
    let mut found = vec![Found::default(); candidates.len()];
    for batch in plan.batches() {
        if progress.cancelled() {
            return Err(Error::Interrupted);
        }
        let hidden = run(base, batch)?;
        let theirs = candidates.iter().map(|candidate| run(candidate, batch));
        let theirs: Vec<_> = theirs.collect::<Result<_, _>>()?;
        let targets = targets(batch);
        let mut seen = 0;
        for window in batch {
            let end = seen + window.scored;
            let mut losses = Vec::with_capacity(window.scored);
            while seen < end {
                let rows = seen..(seen + ROWS).min(end);
                let targets = &targets[rows.clone()];
                let p = base.logits(&hidden, rows.clone())?;
                // Not on rayon's own threads, which nobody has counted.
                let p: Vec<Prediction<'_>> = base.install(|| {
                    let rows = p.par_chunks_exact(vocabulary);
                    rows.map(Prediction::new).collect()
                });
                losses.extend(p.iter().zip(targets).map(|(p, &target)| p.loss(target)));
                for ((found, candidate), hidden) in found.iter_mut().zip(candidates).zip(&theirs) {
                    let q = candidate.logits(hidden, rows.clone())?;
                    let pairs = p.par_iter().zip(q.par_chunks_exact(vocabulary));
                    let tokens = pairs
                        .zip(targets)
                        .map(|((p, q), &target)| p.token(q, target));
                    candidate.install(|| found.tokens.par_extend(tokens));
                }
                seen = rows.end;
            }
            base_losses.add(window, &losses);
            for found in &mut found {
                found.add(window);
            }
        }
        progress.advance(
            batch
                .iter()
                .map(|window| window.tokens.len() as u64 - 1)
                .sum(),
        );
    }
    let base = base_losses.figures(plan);
    let found = found.into_iter();
    Ok(found.map(|found| found.comparison(&base, plan)).collect())
}

/// What is known of a candidate so far.
#[derive(Clone, Default)]
struct Found {
    losses: Losses,
    tokens: Vec<Token>,
}

impl Found {
    /// Counts the losses of a window, whose tokens are the last ones.
    fn add(&mut self, window: &Window) {
        let own = &self.tokens[self.tokens.len() - window.scored..];
        let losses: Vec<f64> = own.iter().map(|token| token.candidate_loss).collect();
        self.losses.add(window, &losses);
    }

    fn comparison(self, base: &Figures, plan: &Plan) -> Comparison {
        let of = |which: fn(&Token) -> f64| self.tokens.iter().map(which).collect::<Vec<_>>();
        let divergences = of(|token| token.divergence);
        let (kl_mean, kl_stderr) = mean_and_error(&divergences);
        let differences = of(|token| token.candidate_loss - token.base_loss);
        let (ln_ppl_ratio, ln_ppl_ratio_stderr) = mean_and_error(&differences);
        let agreeing = self.tokens.iter().filter(|token| token.agree).count();
        Comparison {
            candidate: self.losses.figures(plan),
            base: base.clone(),
            kl_mean,
            kl_stderr,
            kl_p99: percentile(divergences, 0.99),
            top1_agreement: agreeing as f64 / self.tokens.len() as f64,
            ln_ppl_ratio,
            ln_ppl_ratio_stderr,
        }
    }
}

/// What the base makes of a row.
struct Prediction<'a> {
    logits: &'a [f32],
    total: f64,
    probabilities: Vec<f64>,
    top: u32,
}

impl<'a> Prediction<'a> {
    fn new(logits: &'a [f32]) -> Prediction<'a> {
        let total = log_sum_exp(logits);
        Prediction {
            logits,
            total,
            probabilities: logits
                .iter()
                .map(|&logit| (f64::from(logit) - total).exp())
                .collect(),
            top: argmax(logits),
        }
    }

    fn loss(&self, target: u32) -> f64 {
        self.total - f64::from(self.logits[target as usize])
    }

    fn token(&self, q: &[f32], target: u32) -> Token {
        let q_total = log_sum_exp(q);
        let logits = self.logits.iter().zip(q);
        let divergence: f64 = logits
            .zip(&self.probabilities)
            .map(|((&p, &q), probability)| {
                probability * (f64::from(p) - self.total - (f64::from(q) - q_total))
            })
            .sum();
        Token {
            base_loss: self.loss(target),
            candidate_loss: q_total - f64::from(q[target as usize]),
            // Rounding can make what is nothing a little less than nothing.
            divergence: divergence.max(0.0),
            agree: self.top == argmax(q),
        }
    }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = f64::from(logits[argmax(logits) as usize]);
    let sum: f64 = logits
        .iter()
        .map(|&logit| (f64::from(logit) - most).exp())
        .sum();
    most + sum.ln()
}

fn mean_and_error(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    if values.len() < 2 {
        return (mean, None);
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, Some((squares / (count - 1.0) / count).sqrt()))
}

/// The value below which `share` of the values are, between neighbours by their distance.
pub(crate) fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let place = share * (values.len() - 1) as f64;
    let (below, above) = (values[place as usize], values[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_compared_as_probabilities_say() {
        // p = (1/2, 1/2), q = (3/4, 1/4)
        let token = Prediction::new(&[0.0, 0.0]).token(&[3f32.ln(), 0.0], 1);
        let expected = 0.5 * (0.5f64 / 0.75).ln() + 0.5 * (0.5f64 / 0.25).ln();
        assert!((token.divergence - expected).abs() < 1e-7);
        assert!((token.base_loss - 2f64.ln()).abs() < 1e-12);
        assert!((token.candidate_loss - 4f64.ln()).abs() < 1e-7);
        assert!(token.agree);
    }

    #[test]
    fn percentiles_are_those_of_numpy() {
        let values: Vec<f64> = (0..101).rev().map(f64::from).collect();
        assert_eq!(percentile(values, 0.99), 99.0);
        assert_eq!(percentile(vec![1.0, 2.0], 0.25), 1.25);
        assert_eq!(percentile(vec![7.0], 0.99), 7.0);
    }

    #[test]
    fn errors_are_those_of_the_mean() {
        let (mean, error) = mean_and_error(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mean, 2.5);
        assert!((error.unwrap() - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(mean_and_error(&[1.0]), (1.0, None));
    }
}
