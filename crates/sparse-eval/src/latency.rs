//! How long a model takes: to read a prompt, and for each token that it says.

use std::ops::ControlFlow;
use std::time::Instant;

use sparse_engine::{Model, Sampling};

use crate::compare::percentile;
use crate::{Error, Progress};

/// What is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencySpec {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that are generated.
    pub new_tokens: usize,
    /// Repetitions that count.
    pub samples: usize,
    /// Repetitions before them that do not.
    pub warmup: usize,
    /// Seed of the prompt's tokens, which are drawn from the whole vocabulary.
    pub seed: u64,
}

/// A distribution of durations, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Durations {
    /// Half of them are shorter.
    pub p50: f64,
    /// 95 % are shorter.
    pub p95: f64,
    /// 99 % are shorter.
    pub p99: f64,
    /// Their mean.
    pub mean: f64,
}

/// How fast a model is.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    /// Of a whole answer, prompt included.
    pub answer: Durations,
    /// From the start to the first new token.
    pub first_token: Durations,
    /// Of each further token.
    pub token: Durations,
    /// Tokens of the prompt by the median time to the first new token.
    pub prefill_tokens_per_second: f64,
    /// One by the median time of a further token.
    pub decode_tokens_per_second: f64,
    /// New tokens by the time of all answers.
    pub throughput_tokens_per_second: f64,
}

/// Measures models, one answer of each in turn, so that what else the machine does hits all alike.
///
/// # Errors
/// If prompt and answer do not fit a model's context, a model fails, or the caller asks to stop.
pub fn latency(
    models: &[&Model],
    spec: LatencySpec,
    progress: &dyn Progress,
) -> Result<Vec<Latency>, Error> {
    for (option, found) in [
        ("prompt-tokens", spec.prompt_tokens),
        ("new-tokens", spec.new_tokens),
        ("samples", spec.samples),
    ] {
        if found == 0 {
            return Err(Error::Option {
                option,
                expected: "at least 1".to_owned(),
                found,
            });
        }
    }
    let length = spec.prompt_tokens.saturating_add(spec.new_tokens);
    if let Some(model) = models.iter().find(|model| model.config().context < length) {
        return Err(sparse_engine::Error::Context {
            found: length,
            limit: model.config().context,
        }
        .into());
    }
    let mut times = vec![Times::default(); models.len()];
    for round in 0..spec.warmup + spec.samples {
        for (model, times) in models.iter().zip(&mut times) {
            if progress.cancelled() {
                return Err(Error::Interrupted);
            }
            let prompt = prompt(model.config().vocabulary, spec.prompt_tokens, spec.seed);
            let start = Instant::now();
            let mut go_on = |_| ControlFlow::Continue(());
            let made = model.generate(
                &prompt,
                spec.new_tokens,
                &[],
                Sampling::greedy(),
                &mut go_on,
            )?;
            if round >= spec.warmup {
                times.answers.push(start.elapsed().as_secs_f64());
                times.firsts.push(made.first.as_secs_f64());
                times
                    .steps
                    .extend(made.steps.iter().map(std::time::Duration::as_secs_f64));
            }
            progress.advance(1);
        }
    }
    Ok(times.into_iter().map(|times| times.summary(spec)).collect())
}

/// Seconds.
#[derive(Clone, Default)]
struct Times {
    answers: Vec<f64>,
    firsts: Vec<f64>,
    steps: Vec<f64>,
}

impl Times {
    fn summary(self, spec: LatencySpec) -> Latency {
        let total: f64 = self.answers.iter().sum();
        let answer = durations(self.answers);
        let first_token = durations(self.firsts);
        let token = durations(self.steps);
        Latency {
            prefill_tokens_per_second: spec.prompt_tokens as f64 * 1e3 / first_token.p50,
            decode_tokens_per_second: if token.p50 > 0.0 {
                1e3 / token.p50
            } else {
                0.0
            },
            throughput_tokens_per_second: (spec.new_tokens * spec.samples) as f64 / total,
            answer,
            first_token,
            token,
        }
    }
}

/// All zero where there are none: an answer of one token has no further ones.
fn durations(seconds: Vec<f64>) -> Durations {
    if seconds.is_empty() {
        return Durations {
            p50: 0.0,
            p95: 0.0,
            p99: 0.0,
            mean: 0.0,
        };
    }
    let at = |share| 1e3 * percentile(seconds.clone(), share);
    Durations {
        p50: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
        mean: 1e3 * seconds.iter().sum::<f64>() / seconds.len() as f64,
    }
}

/// Tokens by a multiplicative generator, the same for every model of a vocabulary.
fn prompt(vocabulary: usize, len: usize, seed: u64) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let draw = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        ((state >> 33) % vocabulary as u64) as u32
    };
    std::iter::repeat_with(draw).take(len).collect()
}
