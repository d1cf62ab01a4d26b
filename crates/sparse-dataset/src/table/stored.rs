//! Rows kept in a compact form of their own, in memory or in an unlinked
//! temporary file: for formats whose rows cannot be read one at a time.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::record::{Kind, Record};
use super::source::Source;
use crate::error::{Error, Result};
use crate::wire::{Reader, put_number};

const IN_MEMORY: usize = 192 << 20;

/// Rows being written.
pub(crate) struct StoredRows {
    ends: Vec<u64>,
    pending: Vec<u8>,
    spilled: Option<(File, u64)>,
}

impl StoredRows {
    pub(crate) fn new() -> Self {
        Self {
            ends: Vec::new(),
            pending: Vec::new(),
            spilled: None,
        }
    }

    pub(crate) fn push(&mut self, record: &Record, path: &Path) -> Result<()> {
        let out = &mut self.pending;
        put_number(out, u64::from(record.template));
        put_number(out, record.own as u64);
        put_number(out, record.cells().len() as u64);
        for &cell in record.cells() {
            let bytes = record.bytes(cell);
            put_number(out, u64::from(cell.column) << 2 | cell.kind as u64);
            put_number(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        let before = self.spilled.as_ref().map_or(0, |spilled| spilled.1);
        self.ends.push(before + self.pending.len() as u64);
        let limit = if self.spilled.is_some() {
            8 << 20
        } else {
            IN_MEMORY
        };
        if self.pending.len() > limit {
            self.spill(path)?;
        }
        Ok(())
    }

    fn spill(&mut self, path: &Path) -> Result<()> {
        if self.spilled.is_none() {
            self.spilled = Some((crate::output::unlinked_file().map_err(Error::io(path))?, 0));
        }
        if let Some((file, written)) = &mut self.spilled {
            file.write_all(&self.pending).map_err(Error::io(path))?;
            *written += self.pending.len() as u64;
            self.pending.clear();
            self.pending.shrink_to(16 << 20);
        }
        Ok(())
    }

    /// Ends the writing and gives the bytes with the end of each row.
    pub(crate) fn finish(mut self, path: &Path) -> Result<(Source, Vec<u64>)> {
        if self.spilled.is_some() {
            self.spill(path)?;
        }
        let source = match self.spilled {
            Some((file, len)) => Source::from_file(path, file, len),
            None => Source::from_bytes(path, self.pending),
        };
        Ok((source, self.ends))
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
