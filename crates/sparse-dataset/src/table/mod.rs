//! Tables: rows of cells, read from any supported format.

mod declared;
mod ends;
mod memory;
mod record;
mod rows;
mod source;
mod spans;
mod spill;
mod stored;
mod textual;
mod window;

pub(crate) use declared::{Declared, Scales};
pub(crate) use memory::Memory;
pub(crate) use record::{Kind, MAX_RECORD, Record, hash_bytes};
pub(crate) use rows::{Rows, is_tail};
pub(crate) use source::Source;
pub(crate) use spill::Spill;
pub(crate) use stored::StoredRows;
pub(crate) use textual::TextOptions;
