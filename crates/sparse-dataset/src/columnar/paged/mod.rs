//! Parquet files page by page, so that their bytes come back.
//!
//! What stands on a page follows from the rows and a few habits of the writer: which encoding and
//! which compressor a column has, whether levels stand apart ([`Habits`]). So our own writer
//! makes the pages, uncompressed and in the original's places, and they are compressed as the original's
//! were. The rest, page headers with statistics, indexes and the footer, is kept as it differs
//! from ours ([`frame`]). Whether all of it comes back is found out page by page while the delta is
//! made ([`Learner`]).

mod codec;
mod decimals;
mod frame;
mod habits;
mod learn;
mod page;
mod places;
mod snappy;
mod writer;

pub(crate) use frame::Frame;
pub(crate) use habits::Habits;
pub(crate) use learn::Learner;
pub(crate) use writer::{LOOK, PagedWriter, Script};
