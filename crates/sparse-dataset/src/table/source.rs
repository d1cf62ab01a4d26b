//! Bytes of a file, in memory when it is small and read in place when not.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ends::{Ends, LineEnds};
use super::memory::Memory;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::spec::{Progress, go_on};

/// Read at once: what stays in a core's cache while it is digested.
const CHUNK: usize = 256 << 10;

#[derive(Clone)]
enum Held {
    Memory(Arc<Vec<u8>>),
    File(Arc<File>),
}

/// Opens a file, and nothing else: opening a named pipe waits for somebody to write to it. It must
/// not start like one of another kind than its name says.
fn open_regular(path: &Path) -> Result<File> {
    if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
        return Err(Error::io(path)(std::io::Error::other("not a regular file")));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    if let Ok(format) = Format::of(path) {
        let mut start = [0; 16];
        let known = file.read_at(&mut start, 0).map_err(Error::io(path))?;
        format.check_start(path, &start[..known])?;
    }
    Ok(file)
}

/// A file opened for reads at any place; copies share it.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    /// The ends of its lines, if they were looked for and none is too long.
    pub(super) lines: Option<Arc<Ends>>,
    held: Held,
}

impl Source {
    /// Opens a file and hands its bytes to `digest` while it is read the first
    /// time; finds its lines on the way where they are its records. Text is held
    /// in memory if it may be.
    pub(crate) fn open(
        path: &Path,
        memory: &mut Memory,
        progress: &dyn Progress,
        mut digest: impl FnMut(&[u8]),
    ) -> Result<Self> {
        let mut file = open_regular(path)?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let mut read = 0u64;
        let format = Format::of(path)?;
        let mut lines = (format == Format::JsonLines).then(LineEnds::default);
        let mut look = |chunk: &[u8]| {
            digest(chunk);
            if let Some(lines) = &mut lines {
                lines.feed(chunk);
            }
            go_on(progress)
        };
        let held = if format.is_text() && memory.take(len) {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(Error::io(path))?;
            bytes.chunks(CHUNK).try_for_each(&mut look)?;
            read += bytes.len() as u64;
            Held::Memory(Arc::new(bytes))
        } else {
            let mut buffer = vec![0; CHUNK];
            loop {
                let count = file.read(&mut buffer).map_err(Error::io(path))?;
                if count == 0 {
                    break;
                }
                look(&buffer[..count])?;
                read += count as u64;
            }
            Held::File(Arc::new(file))
        };
        Ok(Self {
            path: path.to_owned(),
            len: read,
            held,
            lines: lines.and_then(LineEnds::finish).map(Arc::new),
        })
    }

    /// Opens a file whose digest does not matter, to be read in place.
    pub(crate) fn unread(path: &Path) -> Result<Self> {
        let file = open_regular(path)?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        Ok(Self::from_file(path, file, len))
    }

    /// Keeps bytes that are in memory already.
    pub(crate) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Self {
        Self {
            path: path.to_owned(),
            len: bytes.len() as u64,
            lines: None,
            held: Held::Memory(Arc::new(bytes)),
        }
    }

    /// Takes over a file that was just written.
    pub(crate) fn from_file(path: &Path, file: File, len: u64) -> Self {
        Self {
            path: path.to_owned(),
            len,
            lines: None,
            held: Held::File(Arc::new(file)),
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

    /// Fills `out` with the bytes from `start` on, which must exist.
    pub(super) fn read_into(&self, start: u64, out: &mut [u8]) -> Result<()> {
        match &self.held {
            Held::Memory(bytes) => {
                out.copy_from_slice(&bytes[start as usize..start as usize + out.len()]);
                Ok(())
            }
            Held::File(file) => file
                .read_exact_at(out, start)
                .map_err(Error::io(&self.path)),
        }
    }

    /// Whether all of it is in memory.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.held, Held::Memory(_))
    }

    /// Reads the bytes `start..end` from the first to the last.
    pub(crate) fn reader(&self, start: u64, end: u64) -> SourceReader<'_> {
        SourceReader {
            source: self,
            at: start,
            end,
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

/// A part of a file, read in order.
pub(crate) struct SourceReader<'a> {
    source: &'a Source,
    at: u64,
    end: u64,
}

impl Read for SourceReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let wanted = (self.end.min(self.source.len).saturating_sub(self.at)).min(out.len() as u64);
        let mut buffer = Vec::new();
        let found = self
            .source
            .read(self.at, self.at + wanted, &mut buffer)
            .map_err(std::io::Error::other)?;
        out[..found.len()].copy_from_slice(found);
        self.at += wanted;
        Ok(found.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_share_what_may_be_held_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let text = "{\"a\": 1}\n".repeat(1000);
        let mut memory = Memory::of_split(Format::JsonLines);
        let room = memory.left() - text.len() as u64 * 3 / 2;
        assert!(memory.take(room));
        let mut held = Vec::new();
        for name in ["a.jsonl", "b.jsonl"] {
            let path = folder.path().join(name);
            std::fs::write(&path, &text).unwrap();
            let mut digested = Vec::new();
            let see = |chunk: &[u8]| digested.extend_from_slice(chunk);
            let source = Source::open(&path, &mut memory, &(), see).unwrap();
            let all = source
                .read(0, source.len, &mut Vec::new())
                .unwrap()
                .to_vec();
            assert_eq!(all, text.as_bytes());
            assert_eq!(digested, text.as_bytes());
            held.push((source.is_held(), source.lines.unwrap().len()));
        }
        assert_eq!((held[0].0, held[1].0), (true, false));
        assert_eq!((held[0].1, held[1].1), (1000, 1000));
    }
}
