//! Timing: all methods by turns in one run, every result compared with the original. Methods of this
//! process are timed by what their thread ran, so that a busy machine changes little.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::clock::Clock;
use crate::method::Method;
use crate::pair::Pair;

/// One encode and decode of one contender.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Size of what was written.
    pub bytes: u64,
    /// Time to encode.
    pub encode: Duration,
    /// Time to decode.
    pub decode: Duration,
    /// Whether the rebuilt bytes equal the fine-tune's.
    pub identical: bool,
}

/// Something that can be measured: a [`Method`] in this process, or another tool.
pub trait Contender {
    /// Short name for tables and `--methods`.
    fn name(&self) -> &str;
    /// One line that says what is coded and how.
    fn about(&self) -> &str;
    /// Encodes and decodes once.
    fn round(&mut self, pair: &Pair) -> Result<Round>;
}

/// A [`Method`] with its reused buffers.
pub struct InMemory {
    method: Box<dyn Method>,
    encoded: Vec<u8>,
    rebuilt: Vec<u8>,
}

impl InMemory {
    /// Wraps a method.
    pub fn new(method: Box<dyn Method>) -> Self {
        Self {
            method,
            encoded: Vec::new(),
            rebuilt: Vec::new(),
        }
    }
}

impl Contender for InMemory {
    fn name(&self) -> &str {
        self.method.name()
    }

    fn about(&self) -> &str {
        self.method.about()
    }

    fn round(&mut self, pair: &Pair) -> Result<Round> {
        let Pair {
            layout, base, fine, ..
        } = pair;
        self.encoded.clear();
        self.rebuilt.resize(fine.len(), 0);
        self.rebuilt.fill(0xa5);
        let start = Clock::start();
        self.method.encode(layout, base, fine, &mut self.encoded)?;
        let encode = start.elapsed();
        let start = Clock::start();
        self.method
            .decode(layout, base, &self.encoded, &mut self.rebuilt)?;
        let decode = start.elapsed();
        let identical = self.rebuilt == *fine;
        Ok(Round {
            bytes: self.encoded.len() as u64,
            encode,
            decode,
            identical,
        })
    }
}

/// The outcome for one contender.
#[derive(Debug, Serialize)]
pub struct Measurement {
    /// Its name.
    pub method: String,
    /// What it does.
    pub about: String,
    /// Why there are no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The numbers.
    #[serde(flatten)]
    pub numbers: Option<Numbers>,
}

/// Sizes and speeds over all repeats.
#[derive(Debug, Serialize)]
pub struct Numbers {
    /// Encoded size.
    pub bytes: u64,
    /// Encoded size over the number of weights.
    pub bits_per_weight: f64,
    /// Encoded size over the size of the fine-tune's tensors.
    pub of_original: f64,
    /// Whether every repeat rebuilt the fine-tune byte for byte.
    pub byte_identical: bool,
    /// GB of fine-tune per second at the median encode time.
    pub encode_gb_per_s: f64,
    /// GB of fine-tune per second at the median decode time.
    pub decode_gb_per_s: f64,
    /// GB of fine-tune per second at the shortest encode time.
    pub encode_gb_per_s_best: f64,
    /// GB of fine-tune per second at the shortest decode time.
    pub decode_gb_per_s_best: f64,
    /// Every encode time.
    pub encode_seconds: Vec<f64>,
    /// Every decode time.
    pub decode_seconds: Vec<f64>,
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Timed rounds of each contender.
    pub repeats: usize,
    /// A contender that has used this much time gets no further rounds.
    pub budget: Duration,
}

/// Measures the contenders by turns: round one of each, round two of each, and so
/// on, so that a busy moment of the machine does not fall on one of them alone. A
/// round before the first warms caches and contexts and is not counted, unless it
/// alone uses up the budget.
pub fn measure(
    pair: &Pair,
    contenders: &mut [Box<dyn Contender>],
    effort: Effort,
    mut progress: impl FnMut(&str),
) -> Vec<Measurement> {
    let mut rounds: Vec<Result<Vec<Round>>> = contenders.iter().map(|_| Ok(Vec::new())).collect();
    let mut spent = vec![Duration::ZERO; contenders.len()];
    for repeat in 0..=effort.repeats {
        for (at, contender) in contenders.iter_mut().enumerate() {
            let Ok(done) = &mut rounds[at] else { continue };
            if spent[at] > effort.budget && !done.is_empty() {
                continue;
            }
            progress(&format!(
                "round {repeat} of {}: {}",
                effort.repeats,
                contender.name()
            ));
            match contender.round(pair) {
                Ok(round) => {
                    spent[at] += round.encode + round.decode;
                    if repeat > 0 || spent[at] > effort.budget {
                        done.push(round);
                    }
                }
                Err(error) => rounds[at] = Err(error),
            }
        }
    }
    let outcomes = contenders.iter().zip(rounds);
    outcomes
        .map(|(contender, rounds)| summarize(pair, contender.as_ref(), rounds))
        .collect()
}

fn summarize(pair: &Pair, contender: &dyn Contender, rounds: Result<Vec<Round>>) -> Measurement {
    let numbers = rounds.and_then(|rounds| numbers(pair, &rounds).context("no rounds"));
    let (numbers, error) = match numbers {
        Ok(numbers) => (Some(numbers), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    Measurement {
        method: contender.name().to_owned(),
        about: contender.about().to_owned(),
        error,
        numbers,
    }
}

fn numbers(pair: &Pair, rounds: &[Round]) -> Option<Numbers> {
    let bytes = rounds.iter().map(|r| r.bytes).max()?;
    let encode_seconds: Vec<f64> = rounds.iter().map(|r| r.encode.as_secs_f64()).collect();
    let decode_seconds: Vec<f64> = rounds.iter().map(|r| r.decode.as_secs_f64()).collect();
    let gb = pair.fine.len() as f64 / 1e9;
    Some(Numbers {
        bytes,
        bits_per_weight: 8.0 * bytes as f64 / pair.layout.weights() as f64,
        of_original: bytes as f64 / pair.fine.len() as f64,
        byte_identical: rounds.iter().all(|r| r.identical),
        encode_gb_per_s: gb / median(&encode_seconds),
        decode_gb_per_s: gb / median(&decode_seconds),
        encode_gb_per_s_best: gb / shortest(&encode_seconds),
        decode_gb_per_s_best: gb / shortest(&decode_seconds),
        encode_seconds,
        decode_seconds,
    })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    }
}

fn shortest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_even_and_odd_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(shortest(&[3.0, 1.0]), 1.0);
    }
}
