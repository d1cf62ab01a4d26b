//! Files that hold what memory should not, while a model is quantized.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::Error;

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

    /// Writes `bytes` from `start` on.
    pub(crate) fn write_at(&mut self, start: u64, bytes: &[u8]) -> Result<(), Error> {
        let written = self
            .file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.write_all(bytes));
        written.map_err(Error::io("write", &self.path))
    }

    /// Fills `bytes` with what was written from `start` on.
    pub(crate) fn read_at(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let read = self
            .file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.read_exact(bytes));
        read.map_err(Error::io("read", &self.path))
    }
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
