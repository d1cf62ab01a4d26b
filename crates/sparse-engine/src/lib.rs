//! Runs language-model checkpoints on a CPU.
//!
//! One decoder with switches covers GPT-2, Llama, Mistral, Qwen 2 and 3, SmolLM, GPT-NeoX and OPT.
//! [`ModelConfig`] says what a checkpoint is, [`Model::load`] takes its weights from a [`Source`],
//! in the type they are stored in, and every matrix product goes through a [`Linear`], so that
//! quantized layers and calibration need no second model.
//!
//! ```
//! use sparse_checkpoint::Checkpoint;
//! use sparse_engine::{Model, ModelConfig, Plain, Sampling, Tokenizer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/base");
//! let checkpoint = Checkpoint::open(dir.as_ref())?;
//! let tokenizer = Tokenizer::open(&checkpoint)?;
//! let config = ModelConfig::read(&checkpoint)?;
//! let model = Model::load(config, &Plain::open(&checkpoint)?, 2, &|_, _| ())?;
//!
//! let prompt = tokenizer.encode_prompt("The king")?;
//! let mut go_on = |_| std::ops::ControlFlow::Continue(());
//! let made = model.generate(&prompt, 8, tokenizer.stops(), Sampling::greedy(), &mut go_on)?;
//! assert!(!tokenizer.decode(&made.tokens)?.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! This crate knows configurations, tensors by name, and arithmetic. It does not know how good a
//! model is or how weights are packed; it never prints, reads the environment or exits.
#![deny(unsafe_code)] // but for SIMD kernels and for tiles of one output on several threads
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cache;
mod chat;
mod coded;
mod config;
mod error;
mod generate;
#[allow(unsafe_code)]
mod kernels;
#[allow(unsafe_code)]
mod linear;
mod model;
mod sample;
mod source;
mod statistics;
mod tokenizer;

pub use cache::Cache;
pub use chat::{ChatTemplate, Message};
pub use coded::{Activations, Coded, CodedMatrix, CodedWeights, GroupNumbers, GroupOffsets};
pub use config::{
    Activation, Architecture, Arrangement, Biases, LayerConfig, ModelConfig, Norm, Positions,
    RopeScaling, Rotary,
};
pub use error::Error;
pub use generate::{End, Generated};
pub use kernels::{Vectorize, vectorized};
pub use linear::{Dense, Linear, Prepared, Rows, TILE_OUTPUTS, product};
pub use model::{Hidden, Model, Part, Tap, Workspace};
pub use sample::{Sampling, argmax};
pub use source::{Half, Order, Plain, Source};
pub use statistics::{LayerStatistics, Statistics};
pub use tokenizer::{TextStream, Tokenizer};
