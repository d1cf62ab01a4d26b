//! Bytes written once and read at any place after: in memory while there are
//! few, in an unlinked temporary file from then on.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::source::Source;
use crate::error::{Error, Result};

/// Bytes kept in memory if nobody says otherwise.
const IN_MEMORY: u64 = 192 << 20;
/// Bytes gathered before they are written to the file: what stays in a core's cache till then.
const PENDING: usize = 256 << 10;

/// Bytes being written.
pub(crate) struct Spill {
    pending: Vec<u8>,
    file: Option<(File, u64)>,
    most: u64,
}

impl Default for Spill {
    fn default() -> Self {
        Self::within(IN_MEMORY)
    }
}

impl Spill {
    /// Nothing yet; a file takes over beyond `most` bytes.
    pub(crate) fn within(most: u64) -> Self {
        Self {
            pending: Vec::new(),
            file: None,
            most,
        }
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.1) + self.pending.len() as u64
    }

    /// Adds what `write` appends. `path` is named where the disk is full.
    pub(crate) fn push(&mut self, path: &Path, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        write(&mut self.pending);
        let most = if self.file.is_some() {
            PENDING as u64
        } else {
            self.most
        };
        if self.pending.len() as u64 > most {
            self.flush(path)?;
        }
        Ok(())
    }

    fn flush(&mut self, path: &Path) -> Result<()> {
        if self.file.is_none() {
            self.file = Some((crate::output::unlinked_file().map_err(Error::io(path))?, 0));
        }
        if let Some((file, written)) = &mut self.file {
            file.write_all(&self.pending).map_err(Error::io(path))?;
            *written += self.pending.len() as u64;
            self.pending.clear();
            self.pending.shrink_to(2 * PENDING);
        }
        Ok(())
    }

    /// Ends the writing.
    pub(crate) fn finish(mut self, path: &Path) -> Result<Source> {
        if self.file.is_some() {
            self.flush(path)?;
        }
        Ok(match self.file {
            Some((file, len)) => Source::from_file(path, file, len),
            None => Source::from_bytes(path, self.pending),
        })
    }
}
