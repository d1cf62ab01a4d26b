//! What a candidate changes, measured beside its base, window by window.

use rayon::prelude::*;
use sparse_engine::{Model, argmax};

use crate::measure::{Figures, Losses, run, targets};
use crate::protocol::Plan;
use crate::{Error, Progress};

/// Rows whose logits are held at once, of both models.
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
    let sizes = [base, candidate].map(|model| model.config().vocabulary);
    if sizes[0] != sizes[1] {
        return Err(Error::Incomparable {
            message: format!("vocabularies of {} and {} tokens", sizes[0], sizes[1]),
        });
    }
    let (mut base_losses, mut candidate_losses) = (Losses::default(), Losses::default());
    let mut tokens: Vec<Token> = Vec::new();
    for batch in plan.batches() {
        if progress.cancelled() {
            return Err(Error::Interrupted);
        }
        let hidden = [run(base, batch)?, run(candidate, batch)?];
        let targets = targets(batch);
        let mut seen = 0;
        for window in batch {
            let (first, end) = (tokens.len(), seen + window.scored);
            while seen < end {
                let rows = seen..(seen + ROWS).min(end);
                let count = rows.len();
                let p = base.logits(&hidden[0], rows.clone())?;
                let q = candidate.logits(&hidden[1], rows)?;
                let pairs = p
                    .par_chunks_exact(sizes[0])
                    .zip(q.par_chunks_exact(sizes[0]));
                let targets = &targets[seen..seen + count];
                let found = pairs
                    .zip(targets)
                    .map(|((p, q), &target)| token(p, q, target));
                // Not on rayon's own threads, which nobody has counted.
                candidate.install(|| tokens.par_extend(found));
                seen += count;
            }
            let own = &tokens[first..];
            let losses = |which: fn(&Token) -> f64| own.iter().map(which).collect::<Vec<_>>();
            base_losses.add(window, &losses(|token| token.base_loss));
            candidate_losses.add(window, &losses(|token| token.candidate_loss));
        }
        progress.advance(
            batch
                .iter()
                .map(|window| window.tokens.len() as u64 - 1)
                .sum(),
        );
    }
    let divergences: Vec<f64> = tokens.iter().map(|token| token.divergence).collect();
    let differences: Vec<f64> = tokens
        .iter()
        .map(|token| token.candidate_loss - token.base_loss)
        .collect();
    let (kl_mean, kl_stderr) = mean_and_error(&divergences);
    let (ln_ppl_ratio, ln_ppl_ratio_stderr) = mean_and_error(&differences);
    let agreeing = tokens.iter().filter(|token| token.agree).count();
    Ok(Comparison {
        candidate: candidate_losses.figures(plan),
        base: base_losses.figures(plan),
        kl_mean,
        kl_stderr,
        kl_p99: percentile(divergences, 0.99),
        top1_agreement: agreeing as f64 / tokens.len() as f64,
        ln_ppl_ratio,
        ln_ppl_ratio_stderr,
    })
}

fn token(p: &[f32], q: &[f32], target: u32) -> Token {
    let (p_total, q_total) = (log_sum_exp(p), log_sum_exp(q));
    let divergence: f64 = p
        .iter()
        .zip(q)
        .map(|(&p, &q)| {
            let log_p = f64::from(p) - p_total;
            log_p.exp() * (log_p - (f64::from(q) - q_total))
        })
        .sum();
    let target = target as usize;
    Token {
        base_loss: p_total - f64::from(p[target]),
        candidate_loss: q_total - f64::from(q[target]),
        // Rounding can make what is nothing a little less than nothing.
        divergence: divergence.max(0.0),
        agree: argmax(p) == argmax(q),
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
        let token = token(&[0.0, 0.0], &[3f32.ln(), 0.0], 1);
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
