//! Files that hold what memory should not, while a model is quantized.

use std::fs::File;
use std::path::PathBuf;

use rayon::prelude::*;
use sparse_checkpoint::{read_exact_at, write_all_at};

use crate::Error;

/// Bytes that a thread reads or writes at a time.
const PIECE: usize = 1 << 19;

/// A file that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct ScratchFile {
    path: PathBuf,
    file: File,
}

impl ScratchFile {
    /// An empty file.
    pub(crate) fn create(path: PathBuf) -> Result<ScratchFile, Error> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        Ok(ScratchFile { path, file })
    }

    /// Writes `bytes` from `start` on, on all threads of the current pool.
    pub(crate) fn write_at(&mut self, start: u64, bytes: &[u8]) -> Result<(), Error> {
        bytes
            .par_chunks(PIECE)
            .enumerate()
            .try_for_each(|(at, piece)| {
                write_all_at(&self.file, piece, start + (at * PIECE) as u64)
            })
            .map_err(Error::io("write", &self.path))
    }

    /// Fills `bytes` with what was written from `start` on, on all threads of the current pool.
    pub(crate) fn read_at(&self, start: u64, bytes: &mut [u8]) -> Result<(), Error> {
        bytes
            .par_chunks_mut(PIECE)
            .enumerate()
            .try_for_each(|(at, piece)| {
                read_exact_at(&self.file, piece, start + (at * PIECE) as u64)
            })
            .map_err(Error::io("read", &self.path))
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
