//! Dataset deltas: a derivative dataset stored as what is new in it, given its
//! base, and rebuilt exactly.
//!
//! A file is read as *records* of *cells* between literal *templates*; each
//! record refers to a base row or is new; each cell is predicted from the base
//! row and from cells beside it, or told as an edit, a known value or new text.

#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod artifact;
mod bytes;
mod coding;
mod columnar;
mod compress;
mod decide;
mod delta;
mod descriptions;
mod digest;
mod error;
mod estimate;
mod format;
mod header;
mod info;
mod inputs;
mod matching;
mod output;
mod plan;
mod rebuild;
mod reconstruct;
mod report;
mod spec;
mod split;
mod table;
mod text;
mod wire;
mod workers;

pub use artifact::{FILE_NAME, FORMAT_VERSION};
pub use compress::compress;
pub use error::{Error, Result};
pub use estimate::estimate;
pub use format::Format;
pub use info::{examples, info};
pub use reconstruct::{ReconstructReport, reconstruct, verify};
pub use spec::{
    CompressReport, CompressSpec, Effort, Estimate, Example, Info, Progress, SplitReport,
};
