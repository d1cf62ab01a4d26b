//! Fine-tuned checkpoints as lossless deltas of their bases.
//!
//! [`compress`] writes a folder with one safetensors file; [`reconstruct`] rebuilds from it and
//! the base every file of the fine-tune, byte for byte, checked by SHA-256. [`reconstruct_tensor`]
//! rebuilds one tensor from its own bytes alone. [`verify`], [`info`] and [`estimate`] answer
//! questions about deltas. `docs/delta-format.md` specifies the artifact.
//!
//! ```
//! use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec, WriteOptions, write_shards};
//! use sparse_delta::{CompressOptions, Effort, Existing, ReconstructOptions, Silent};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = |name: &str| dir.path().join(name);
//! let spec = [TensorSpec::new("wte.weight", Dtype::F32, [64, 32])];
//! for (name, moved) in [("base", 0.0f32), ("fine", 0.001)] {
//!     std::fs::create_dir(path(name))?;
//!     let weights = (0..64 * 32).flat_map(|i| ((i % 97) as f32 * 0.01 + moved).to_le_bytes());
//!     let bytes: Vec<u8> = weights.collect();
//!     write_shards(&path(name), &spec, &WriteOptions::default(), |_, out| out.write_all(&bytes))?;
//! }
//! let base = Checkpoint::open(&path("base"))?;
//! let fine = Checkpoint::open(&path("fine"))?;
//!
//! let options = CompressOptions {
//!     base_id: "owner/base".to_owned(),
//!     effort: Effort::High,
//!     threads: 2,
//!     existing: Existing::Keep,
//! };
//! let made = sparse_delta::compress(&base, &fine, &path("delta"), &options, &Silent)?;
//! assert_eq!(made.changed_parameters, 64 * 32);
//!
//! let options = ReconstructOptions { threads: 2, existing: Existing::Keep };
//! sparse_delta::reconstruct(&base, &path("delta"), &path("back"), &options, &Silent)?;
//! let name = "model.safetensors";
//! assert_eq!(std::fs::read(path("back").join(name))?, std::fs::read(path("fine").join(name))?);
//! # Ok(())
//! # }
//! ```
//!
//! Memory stays at a few chunks whatever the model's size; only the search for low-rank changes
//! ([`Effort::High`]) holds blocks of matrices, together about half a gigabyte. Outputs appear under
//! their names only when they are complete. This crate does not know the terminal or the
//! environment; it never prints or exits.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]
mod artifact;
mod base;
mod basedigest;
mod compress;
#[cfg(any(test, fuzzing))]
mod crafted;
mod digest;
mod error;
mod estimate;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod info;
mod matching;
mod pipeline;
mod plan;
mod progress;
mod raw;
mod reconstruct;
mod source;
mod verify;
mod words;

pub use artifact::FORMAT_VERSION;
pub use compress::{CompressOptions, Compressed, compress};
pub use digest::{BaseDigest, FileDigest};
pub use error::Error;
pub use estimate::{Estimated, estimate};
pub use info::{FileInfo, Info, TensorSummary, info};
pub use plan::Effort;
pub use progress::{Progress, Silent};
pub use reconstruct::{ReconstructOptions, Reconstructed, reconstruct, reconstruct_tensor};
pub use sparse_checkpoint::Existing;
pub use verify::verify;
