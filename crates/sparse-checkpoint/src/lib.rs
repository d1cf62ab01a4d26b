//! A model checkpoint on disk: safetensors shards, their index, and the files beside them.
//!
//! [`Checkpoint::open`] walks a directory and validates every shard's header once; what it hands
//! out afterwards ([`Shard`], [`TensorRef`], [`RelPath`]) is trusted by everything above it.
//!
//! ```
//! use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec, WriteOptions, write_shards};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let specs = [TensorSpec::new("wte", Dtype::F32, [2, 2])];
//! write_shards(dir.path(), &specs, &WriteOptions::default(), |_, out| {
//!     out.write_all(&[0; 16])
//! })?;
//!
//! let checkpoint = Checkpoint::open(dir.path())?;
//! let wte = checkpoint.tensor("wte").ok_or("no such tensor")?;
//! assert_eq!((wte.dtype(), wte.shape()), (Dtype::F32, &[2, 2][..]));
//! let mut row = [0; 8];
//! wte.read_range(8..16, &mut row)?; // positional read of the second row
//! assert_eq!(row, wte.bytes()?[8..16]); // the same through the memory map
//! # Ok(())
//! # }
//! ```
//!
//! This crate knows files, headers and names. It does not know what a tensor means, how it is
//! compressed or run; it never prints, reads the environment or exits.
#![deny(unsafe_code)] // but for the one call that maps a file
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod checkpoint;
mod dtype;
mod error;
#[cfg(all(fuzzing, feature = "hub"))]
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod hub;
mod index;
mod json;
mod relpath;
mod shard;
mod tensor;
mod walk;
mod write;

pub use checkpoint::{Checkpoint, PlainFile};
pub use dtype::{Dtype, UnknownDtype};
pub use error::Error;
pub use header::{Header, HeaderError, MAX_HEADER_BYTES, TensorInfo, header_len, parse_header};
pub use hub::{HubConfig, HubError, OnProgress, Progress, RepoId, resolve, resolve_headers};
pub use memmap2::Mmap;
pub use relpath::{RelPath, RelPathError};
pub use shard::{Shard, read_exact_at, write_all_at};
pub use tensor::TensorRef;
pub use write::{
    AtomicFile, Existing, NewParents, OutputDir, ShardWriter, TensorSpec, TensorWriter,
    WriteOptions, planned_bytes, write_shards,
};
