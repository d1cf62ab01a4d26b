//! Bytes of a file, in memory when it is small and read in place when not.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Files up to this size are held in memory.
const IN_MEMORY: u64 = 192 << 20;
const CHUNK: usize = 4 << 20;

enum Held {
    Memory(Vec<u8>),
    File(File),
}

/// A file opened for reads at any place.
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    held: Held,
}

impl Source {
    /// Opens a file and digests it while it is read the first time.
    pub(crate) fn open(path: &Path) -> Result<(Self, [u8; 32])> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let mut digest = Sha256::new();
        let mut read = 0u64;
        let held = if len <= IN_MEMORY {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(Error::io(path))?;
            digest.update(&bytes);
            read += bytes.len() as u64;
            Held::Memory(bytes)
        } else {
            let mut buffer = vec![0; CHUNK];
            loop {
                let count = file.read(&mut buffer).map_err(Error::io(path))?;
                if count == 0 {
                    break;
                }
                digest.update(&buffer[..count]);
                read += count as u64;
            }
            Held::File(file)
        };
        Ok((
            Self {
                path: path.to_owned(),
                len: read,
                held,
            },
            digest.finalize().into(),
        ))
    }

    /// Keeps bytes that are in memory already.
    pub(crate) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Self {
        Self {
            path: path.to_owned(),
            len: bytes.len() as u64,
            held: Held::Memory(bytes),
        }
    }

    /// Takes over a file that was just written.
    pub(crate) fn from_file(path: &Path, file: File, len: u64) -> Self {
        Self {
            path: path.to_owned(),
            len,
            held: Held::File(file),
        }
    }

    /// The bytes `start..end`, through `buffer` where they are not in memory.
    pub(crate) fn read<'a>(
        &'a self,
        start: u64,
        end: u64,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        let end = end.min(self.len);
        let start = start.min(end);
        match &self.held {
            Held::Memory(bytes) => Ok(&bytes[start as usize..end as usize]),
            Held::File(file) => {
                buffer.resize((end - start) as usize, 0);
                file.read_exact_at(buffer, start)
                    .map_err(Error::io(&self.path))?;
                Ok(buffer)
            }
        }
    }

    /// The file's bytes, when it is held in memory.
    pub(crate) fn in_memory(&self) -> Option<&[u8]> {
        match &self.held {
            Held::Memory(bytes) => Some(bytes),
            Held::File(_) => None,
        }
    }

    /// Calls `visit` with the file piece by piece.
    pub(crate) fn chunks(&self, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = Vec::new();
        let mut at = 0;
        while at < self.len {
            let end = (at + CHUNK as u64).min(self.len);
            visit(self.read(at, end, &mut buffer)?)?;
            at = end;
        }
        Ok(())
    }
}
