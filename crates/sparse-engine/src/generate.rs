//! Generating text, token by token.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::Error;
use crate::model::Model;
use crate::sample::Sampling;

/// How a text went on.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens, the one that ended the text included.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub end: End,
    /// From the start to the first new token.
    pub first: Duration,
    /// Time of each further token.
    pub steps: Vec<Duration>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a stop token.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The model has no position for another token.
    Context,
    /// The caller had enough.
    Caller,
}

impl End {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            End::Stop => "stop",
            End::Length => "length",
            End::Context => "context",
            End::Caller => "caller",
        }
    }
}

impl Model {
    /// Continues `prompt` by at most `limit` tokens, until one of `stops` or until `each`, which
    /// sees every new token, breaks.
    ///
    /// # Errors
    /// If the prompt is empty or longer than the model's context, a token is unknown, or
    /// activations are not finite.
    pub fn generate(
        &self,
        prompt: &[u32],
        limit: usize,
        stops: &[u32],
        mut sampling: Sampling,
        each: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generated, Error> {
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let context = self.config().context;
        if prompt.len() > context {
            return Err(Error::Context {
                found: prompt.len(),
                limit: context,
            });
        }
        // The last new token is never run, so it needs no room.
        let mut cache = self.cache(prompt.len().saturating_add(limit));
        let mut result = Generated {
            tokens: Vec::new(),
            end: End::Length,
            first: Duration::ZERO,
            steps: Vec::new(),
        };
        let mut next = prompt.to_vec();
        while result.tokens.len() < limit {
            let start = Instant::now();
            let hidden = self.extend_to_last(&next, &mut cache)?;
            let logits = self.logits(&hidden, 0..1)?;
            let token = sampling.choose(&logits);
            if result.tokens.is_empty() {
                result.first = start.elapsed();
            } else {
                result.steps.push(start.elapsed());
            }
            result.tokens.push(token);
            if stops.contains(&token) {
                result.end = End::Stop;
                break;
            }
            if each(token).is_break() {
                result.end = End::Caller;
                break;
            }
            if cache.len() == context && result.tokens.len() < limit {
                result.end = End::Context;
                break;
            }
            next = vec![token];
        }
        Ok(result)
    }
}
