//! (docs below)
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod binary;
mod bits;
mod bytes;
mod chunk;
mod context;
mod error;
mod fit;
mod lowrank;
mod rans;
mod scales_bytes;
mod score;
mod simd;
mod tables;
mod word;
pub use bytes::{Reader, put_varint};
pub use chunk::{ChunkMode, Encoder, Model, Scratch, decode, encode_full};
pub use context::Scales;
pub use error::CodecError;
pub use fit::{Fit, Fitter};
pub use lowrank::LowRank;
pub use tables::TableSet;
pub use word::{Layout, Word};
