//! Finding the base row of each derivative row, without a key being named.

mod hashes;
mod keys;
mod similar;

pub(crate) use hashes::HashMatrix;
pub(crate) use keys::{INDEX_ROWS, Matcher, column_pairs};
pub(crate) use similar::match_similar;

/// The reference of a row that is not from the base.
pub(crate) const NEW: u32 = u32::MAX;
