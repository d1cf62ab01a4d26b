//! Running a plan's windows through a model, and what comes of it.

use sha2::{Digest, Sha256};
use sparse_engine::{Hidden, Model};

use crate::protocol::{Plan, Unit, Window};
use crate::{Error, Progress};

/// Rows that are run together: enough that weights are read seldom, few enough that activations
/// stay small beside them.
const BATCH_ROWS: usize = 2048;

/// A perplexity, and everything that it depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// The protocol's name.
    pub protocol: &'static str,
    /// Tokens of a window.
    pub context: usize,
    /// Tokens from one window to the next.
    pub stride: usize,
    /// Tokens of the text.
    pub tokens: usize,
    /// Losses that the sum counts.
    pub scored_tokens: usize,
    /// Their sum, in nats, as the protocol weighs them.
    pub nll: f64,
    /// exp(nll / scored tokens); by `lm-eval`, exp(nll / words).
    pub perplexity: f64,
    /// Its standard error, from the spread of the losses, as if they were independent; a single
    /// loss has none.
    pub perplexity_stderr: Option<f64>,
    /// By `per-text`: documents of fewer than two tokens, which have no loss and are left out.
    pub skipped_documents: Option<usize>,
    /// By `lm-eval`: words, and what one byte takes, in bits.
    pub words: Option<(usize, f64)>,
    /// SHA-256 of the windows' tokens, in hexadecimal: equal for equal texts and tokenizers.
    pub text_digest: String,
}

/// The losses of windows: what figures are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses {
    count: usize,
    sum: f64,
    squares: f64,
    /// Mean losses of windows, times their weights.
    weighted: f64,
    weights: usize,
}

impl Losses {
    pub fn add(&mut self, window: &Window, losses: &[f64]) {
        let sum: f64 = losses.iter().sum();
        self.count += losses.len();
        self.sum += sum;
        self.squares += losses.iter().map(|loss| loss * loss).sum::<f64>();
        self.weighted += sum / losses.len() as f64 * window.weight as f64;
        self.weights += window.weight;
    }

    /// The standard error of the mean loss, where there is more than one.
    fn error(&self) -> Option<f64> {
        if self.count < 2 {
            return None;
        }
        let count = self.count as f64;
        let variance = (self.squares - self.sum * self.sum / count) / (count - 1.0);
        Some((variance.max(0.0) / count).sqrt())
    }

    pub fn figures(&self, plan: &Plan) -> Figures {
        let (divisor, words) = match plan.unit {
            Unit::Weights => (self.weights, None),
            Unit::Words { words, bytes } => {
                let bits = self.weighted / bytes as f64 / std::f64::consts::LN_2;
                (words, Some((words, bits)))
            }
        };
        let perplexity = (self.weighted / divisor as f64).exp();
        // The mean that is exponentiated is of `divisor` parts, not of `count`.
        let scale = self.count as f64 / divisor as f64;
        let scale = if words.is_some() { scale } else { 1.0 };
        Figures {
            protocol: plan.protocol.name(),
            context: plan.context,
            stride: plan.stride,
            tokens: plan.tokens,
            scored_tokens: self.weights,
            nll: self.weighted,
            perplexity,
            perplexity_stderr: self.error().map(|error| perplexity * error * scale),
            skipped_documents: plan.skipped_documents(),
            words,
            text_digest: plan.digest(),
        }
    }
}

impl Plan {
    /// What two runs must share for their figures to be comparable, by the names that results have
    /// for it.
    pub fn identity(&self) -> [(&'static str, serde_json::Value); 4] {
        [
            ("protocol", self.protocol.name().into()),
            ("context", self.context.into()),
            ("stride", self.stride.into()),
            ("text_digest", self.digest().into()),
        ]
    }

    /// See [`Figures::text_digest`].
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for window in &self.windows {
            hash.update((window.tokens.len() as u64).to_le_bytes());
            for token in &window.tokens {
                hash.update(token.to_le_bytes());
            }
        }
        hash.finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Windows that are run together.
    pub(crate) fn batches(&self) -> impl Iterator<Item = &[Window]> {
        let mut rest = &self.windows[..];
        std::iter::from_fn(move || {
            let mut rows = 0;
            let mut fits = |window: &Window| {
                rows += window.tokens.len() - 1;
                rows <= BATCH_ROWS
            };
            let count = rest.iter().take_while(|window| fits(window)).count();
            if rest.is_empty() {
                return None;
            }
            let (now, later) = rest.split_at(count.max(1));
            rest = later;
            Some(now)
        })
    }
}

/// What a model is given of each window of a batch: all but the last token.
pub(crate) fn inputs(batch: &[Window]) -> Vec<&[u32]> {
    batch
        .iter()
        .map(|window| &window.tokens[..window.tokens.len() - 1])
        .collect()
}

/// The rows of a batch whose predictions are scored, as a model leaves them.
pub(crate) fn run(model: &Model, batch: &[Window]) -> Result<Hidden, Error> {
    let mut end = 0;
    let scored = batch.iter().flat_map(|window| {
        end += window.tokens.len() - 1;
        end - window.scored..end
    });
    let scored: Vec<usize> = scored.collect();
    Ok(model.run_for(&inputs(batch), &scored)?)
}

/// What the scored rows should predict, window after window.
pub(crate) fn targets(batch: &[Window]) -> Vec<u32> {
    let scored = |window: &Window| window.tokens[window.tokens.len() - window.scored..].to_vec();
    batch.iter().flat_map(scored).collect()
}

/// The perplexity of a model by a plan.
///
/// # Errors
/// If the model fails, or the caller asks to stop.
pub fn perplexity(model: &Model, plan: &Plan, progress: &dyn Progress) -> Result<Figures, Error> {
    let mut losses = Losses::default();
    for batch in plan.batches() {
        if progress.cancelled() {
            return Err(Error::Interrupted);
        }
        let all = model.losses(&run(model, batch)?, &targets(batch))?;
        let mut rest = &all[..];
        for window in batch {
            let (own, later) = rest.split_at(window.scored);
            losses.add(window, own);
            rest = later;
        }
        progress.advance(
            batch
                .iter()
                .map(|window| window.tokens.len() as u64 - 1)
                .sum(),
        );
    }
    Ok(losses.figures(plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_has_no_standard_error() {
        let window = Window {
            tokens: vec![0, 1],
            scored: 1,
            weight: 1,
        };
        let mut losses = Losses::default();
        losses.add(&window, &[1.5]);
        assert_eq!(losses.error(), None);
        losses.add(&window, &[2.5]);
        assert!((losses.error().unwrap() - 0.5).abs() < 1e-12);
    }
}
