//! Quantizing checkpoints into the formats that people's tools load.
//!
//! [`quantize`] writes a checkpoint anew with its linear layers as codes and scales. Methods
//! ([`method`]) are pure functions over matrices; formats ([`mod@format`]) say which tensors a layer
//! becomes, and read them back; [`Preset`]s name combinations of the two.
//!
//! A layer is in memory at a time, so memory does not grow with the model. Outputs appear only
//! when they are complete. This crate does not know the terminal or the environment; it never
//! prints or exits.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod architecture;
mod calibrate;
mod carry;
mod choose;
mod deferred;
mod dequantize;
mod error;
mod estimate;
mod fold;
pub mod format;
pub mod gguf;
mod linear;
mod matrix;
pub mod method;
mod packing;
mod plan;
mod pool;
mod preset;
mod progress;
mod quantize;
mod rows;
mod scheme;
mod scratch;
mod spool;
mod weights;

pub use architecture::Architecture;
pub use calibrate::{Calibration, DEFAULT_SAMPLES};
pub use dequantize::{Quantized, dequantize};
pub use error::Error;
pub use estimate::{Estimate, estimate};
pub use gguf::dequantize_gguf;
pub use linear::{QuantizedSource, linear};
pub use matrix::Matrix;
pub use plan::QuantSpec;
pub use preset::{Changes, Format, Method, PRESETS, Preset, Variant};
pub use progress::{Progress, Silent};
pub use quantize::{DEFAULT_SHARD_BYTES, Options, Report, quantize};
pub use scheme::Packed;
