//! The delta of one file: references, rows, cells and edits as coded streams.

mod block;
mod column;
mod edit;
mod lesson;
mod levels;
mod references;
mod row;
mod texts;

pub(crate) use block::{BlockDecoder, BlockEncoder, Counts, ModelSize, Setup, Tally};
pub(crate) use levels::Levels;
pub(crate) use row::RowCoder;
