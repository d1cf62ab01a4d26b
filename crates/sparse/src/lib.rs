//! Sparse as a library: one name for its rooms.
//!
//! ```
//! use sparse::{checkpoint::Checkpoint, delta};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (base, fine) = (concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/base"), concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/base"));
//! # let scratch = tempfile::tempdir()?;
//! # let out = scratch.path().join("delta");
//! let base = Checkpoint::open(base.as_ref())?;
//! let fine = Checkpoint::open(fine.as_ref())?;
//! let options = delta::CompressOptions {
//!     base_id: "owner/base".to_owned(),
//!     effort: delta::Effort::High,
//!     threads: 2,
//!     existing: delta::Existing::Keep,
//! };
//! let made = delta::compress(&base, &fine, &out, &options, &delta::Silent)?;
//! assert!(made.ratio() > 50.0); // a copy of the base costs next to nothing
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub use sparse_checkpoint as checkpoint;
pub use sparse_dataset as dataset;
pub use sparse_delta as delta;
pub use sparse_engine as engine;
pub use sparse_eval as eval;
pub use sparse_quant as quant;
