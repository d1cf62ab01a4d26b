//! The delta of one file: references, rows, cells and edits as coded streams.

mod block;
mod column;
mod edit;
mod lesson;
mod levels;
mod references;
mod row;
mod splice;
mod texts;

pub(crate) use block::{BlockDecoder, BlockEncoder, Counts, Decoded, ModelSize, Setup, Tally};
pub(crate) use levels::Levels;
pub(crate) use row::RowCoder;
pub(crate) use splice::Splice;
