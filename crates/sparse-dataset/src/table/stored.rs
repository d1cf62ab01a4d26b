//! Rows kept in a compact form of their own: for formats whose rows cannot be
//! read one at a time.

use std::path::Path;

use super::ends::Ends;
use super::record::{Kind, MAX_RECORD, Record};
use super::source::Source;
use super::spill::Spill;
use crate::error::{Error, Result};
use crate::wire::{Reader, put_number};

/// Rows being written.
pub(crate) struct StoredRows {
    ends: Ends,
    bytes: Spill,
}

impl StoredRows {
    /// No rows yet; they are held in memory up to `most` bytes.
    pub(crate) fn within(most: u64) -> Self {
        Self {
            ends: Ends::default(),
            bytes: Spill::within(most),
        }
    }

    pub(crate) fn push(&mut self, record: &Record, path: &Path) -> Result<()> {
        let Self { ends, bytes } = self;
        bytes.push(path, |out| {
            put_number(out, u64::from(record.template));
            put_number(out, record.own as u64);
            put_number(out, record.cells().len() as u64);
            for &cell in record.cells() {
                let bytes = record.bytes(cell);
                put_number(out, u64::from(cell.column) << 2 | cell.kind as u64);
                put_number(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        })?;
        if ends.push(bytes.len()) {
            Ok(())
        } else {
            Err(Error::TooLarge {
                path: path.to_owned(),
                what: "a row with what surrounds it".to_owned(),
                found: bytes.len(),
                limit: MAX_RECORD as u64,
            })
        }
    }

    /// Ends the writing and gives the bytes with the end of each row.
    pub(crate) fn finish(self, path: &Path) -> Result<(Source, Ends)> {
        Ok((self.bytes.finish(path)?, self.ends))
    }
}

/// Reads a row that [`StoredRows::push`] wrote.
pub(crate) fn read_stored(bytes: &[u8], record: &mut Record) -> Option<()> {
    let mut reader = Reader::new(bytes);
    record.clear();
    let template = reader.number()? as u32;
    let own = reader.number()? as usize;
    for _ in 0..reader.number()? {
        let head = reader.number()?;
        let len = reader.number()? as usize;
        record.push(
            (head >> 2) as u32,
            Kind::from_index((head & 3) as usize),
            reader.bytes(len)?,
        );
    }
    record.template = template;
    record.own = own;
    Some(())
}
