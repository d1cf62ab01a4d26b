//! A model checkpoint on disk: safetensors shards, their index, and the files beside them.
//!
//! [`Checkpoint::open`] walks a directory and validates every shard's header once; what it hands
//! out afterwards ([`Shard`], [`TensorRef`], [`RelPath`]) is trusted by everything above it.
//!
//! This crate knows files, headers and names. It does not know what a tensor means, how it is
//! compressed or run; it never prints, reads the environment or exits.
#![deny(unsafe_code)] // but for the one call that maps a file
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod checkpoint;
mod dtype;
mod error;
mod header;
mod index;
mod json;
mod relpath;
mod shard;
mod walk;

pub use checkpoint::{Checkpoint, PlainFile};
pub use dtype::{Dtype, UnknownDtype};
pub use error::Error;
pub use header::{Header, HeaderError, MAX_HEADER_BYTES, TensorInfo, header_len, parse_header};
pub use memmap2::Mmap;
pub use relpath::{RelPath, RelPathError};
pub use shard::{Shard, TensorRef};
