//! (docs)
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
mod output;
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
pub use output::Existing;
pub use progress::{Progress, Silent};
pub use reconstruct::{ReconstructOptions, Reconstructed, reconstruct, reconstruct_tensor};
pub use verify::verify;
