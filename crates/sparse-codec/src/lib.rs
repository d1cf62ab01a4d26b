//! Entropy coding of weight deltas: slices in, slices out.
//!
//! A fine-tune moves most weights by a few representable steps. How many is decided by two
//! things: how far the optimizer moved that row and column of the matrix (its *scale*), and how
//! long a step is at that weight (its exponent). [`Fitter`] learns scales and tables from a
//! sample; [`Encoder`] codes chunks with them; [`decode`] rebuilds a chunk from the base, the
//! tables and the chunk's bytes. [`LowRank`] predicts the part of a change that is low-rank, as in
//! a merged LoRA; what it predicts then takes the base's place.
//!
//! ```
//! use sparse_codec::{Encoder, Fitter, Layout, Model, Scratch, decode};
//!
//! // Bfloat16 weights of a 64 x 128 matrix, every seventh moved by one step.
//! let base: Vec<u16> = (0..64 * 128u32).map(|i| 0x3c00 + (i % 509) as u16).collect();
//! let fine: Vec<u16> = (0..).zip(&base).map(|(i, w)| w + u16::from(i % 7 == 0)).collect();
//!
//! let mut fitter = Fitter::new(Layout::BF16);
//! fitter.add(128, base.len() as u64, [(0, &base[..], &fine[..])]);
//! let fit = fitter.fit();
//!
//! let mut bytes = Vec::new();
//! Encoder::new(Layout::BF16, &fit).encode(&fit.scales[0], 0, &base, &fine, &mut bytes);
//! assert!(bytes.len() * 10 < base.len() * 2);
//!
//! let model = Model::new(Layout::BF16, &fit.tables, &fit.scales[0]);
//! let mut back = vec![0; fine.len()];
//! decode(&model, 0, &base, &bytes, &mut Scratch::default(), &mut back)?;
//! assert_eq!(back, fine);
//! # Ok::<(), sparse_codec::CodecError>(())
//! ```
//!
//! This crate knows words, not files: no I/O, no names, no threads. Coded bytes from anywhere are
//! safe to decode: they give weights or a [`CodecError`], never a panic. SIMD is chosen at run
//! time, and every kernel has a scalar twin that computes the same.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod binary;
mod bits;
mod bytes;
mod chunk;
mod context;
#[cfg(target_arch = "x86_64")]
mod context_avx512;
mod error;
mod fit;
mod lowrank;
mod ranks;
mod rans;
mod sampling;
mod scales_bytes;
mod score;
#[cfg(target_arch = "x86_64")]
mod score_avx512;
mod simd;
mod tables;
mod unary;
mod word;
pub use bytes::{Reader, put_varint};
pub use chunk::{ChunkMode, Encoder, Model, Scratch, decode, encode_full};
pub use context::Scales;
pub use error::CodecError;
pub use fit::{Fit, Fitter};
pub use lowrank::{LowRank, Stop};
pub use sampling::Sampling;
pub use tables::TableSet;
pub use word::{Layout, Word};
