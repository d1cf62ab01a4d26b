//! How good and how fast a model is: perplexity by named protocols, divergence from a base,
//! latency and throughput.
//!
//! A figure is measured by a [`Plan`], which fixes the windows that a text is cut into, and says
//! everything that it depends on.
//!
//! ```
//! use sparse_checkpoint::Checkpoint;
//! use sparse_engine::{Model, ModelConfig, Plain, Tokenizer};
//! use sparse_eval::{Plan, Protocol, Silent, Spec, perplexity};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/base");
//! let checkpoint = Checkpoint::open(dir.as_ref())?;
//! let config = ModelConfig::read(&checkpoint)?;
//! let model = Model::load(config, &Plain::open(&checkpoint)?, 2, &|_, _| ())?;
//!
//! let spec = Spec {
//!     protocol: Protocol::HfStride,
//!     context: Some(64),
//!     stride: None,
//!     max_tokens: None,
//! };
//! let text = ["To be, or not to be, that is the question".to_owned()];
//! let plan = Plan::new(&spec, &text, &Tokenizer::open(&checkpoint)?, model.config().context)?;
//! let figures = perplexity(&model, &plan, &Silent)?;
//! assert!(figures.perplexity > 1.0 && figures.perplexity < 1024.0);
//! # Ok(())
//! # }
//! ```
//!
//! This crate knows texts, windows and statistics. It does not know how a model computes; it never
//! prints, reads the environment or exits.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod calibrate;
mod compare;
mod error;
mod latency;
mod measure;
mod protocol;
mod text;

pub use calibrate::calibrate;
pub use compare::{Comparison, compare, compare_all};
pub use error::Error;
pub use latency::{Durations, Latency, LatencySpec, latency};
pub use measure::{Figures, perplexity};
pub use protocol::{Plan, Protocol, Spec};
pub use text::{Reading, read};

/// How far the work is, and whether to go on.
pub trait Progress: Sync {
    /// Tokens, or repetitions, that were done since the last call.
    fn advance(&self, _done: u64) {}

    /// Whether the caller wants it to stop.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {}
