//! One safetensors file: its validated header, and its bytes by position or by memory map.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use memmap2::Mmap;

use crate::RelPath;
use crate::error::Error;
use crate::header::{Header, HeaderError, TensorInfo, header_len, parse_header};
use crate::tensor::TensorRef;
use crate::walk::open_regular;

/// A safetensors file whose header has been validated.
///
/// The file stays open, so that replacing it on disk does not mix old and new bytes.
#[derive(Debug)]
pub struct Shard {
    path: RelPath,
    full_path: PathBuf,
    file: File,
    size: u64,
    header: Header,
    map: OnceLock<Mmap>,
}

impl Shard {
    /// Opens the file at `path` below `root` and validates its header.
    ///
    /// # Errors
    /// If the file cannot be read, is shorter than its header promises, or the header is invalid.
    pub fn open(root: &Path, path: RelPath) -> Result<Shard, Error> {
        let full_path = path.join_to(root);
        let file = open_regular(&full_path)?;
        let metadata = file.metadata().map_err(Error::io("read", &full_path))?;
        let size = metadata.len();
        let header = read_header(&file, &full_path, size)?;
        Ok(Shard {
            path,
            full_path,
            file,
            size,
            header,
            map: OnceLock::new(),
        })
    }

    /// Where the file is, relative to the checkpoint.
    pub fn path(&self) -> &RelPath {
        &self.path
    }

    /// Where the file is on this machine.
    pub fn full_path(&self) -> &Path {
        &self.full_path
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The validated header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The header's JSON text as it is in the file, padding included.
    pub fn header_text(&self) -> &str {
        self.header.text()
    }

    /// Offset of the data in the file: the length field and the header come before it.
    pub fn data_start(&self) -> u64 {
        8 + self.header.text().len() as u64
    }

    /// All tensors, by ascending offset.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.header.tensors()
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<TensorRef<'_>> {
        let info = &self.header.tensors()[self.header.position(name)?];
        Some(TensorRef::new(self, info))
    }

    pub(crate) fn tensor_at(&self, at: usize) -> TensorRef<'_> {
        TensorRef::new(self, &self.header.tensors()[at])
    }

    /// Ranges of the data, relative to [`Shard::data_start`], that no tensor covers.
    pub fn gaps(&self) -> Vec<Range<u64>> {
        self.header.gaps()
    }

    /// Fills `buffer` with the bytes at `offset` in the file, without touching the memory map.
    ///
    /// # Errors
    /// If the range is not within the file, or the file has shrunk since it was opened.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.size {
            return Err(self.out_of_range("a file".to_owned(), offset..end, self.size));
        }
        read_exact_at(&self.file, buffer, offset).map_err(|cause| match cause.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(),
            _ => Error::Io {
                action: "read",
                path: self.full_path.clone(),
                cause,
            },
        })
    }

    /// The whole file as a memory map, made on first use.
    ///
    /// While it is in use the file must not be truncated in place: reading pages that are gone
    /// ends the process. [`Shard::read_at`] reports that as an error instead.
    ///
    /// # Errors
    /// If the system refuses, or the file has shrunk since it was opened.
    pub fn map(&self) -> Result<&Mmap, Error> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        let map = map_file(&self.file).map_err(Error::io("map", &self.full_path))?;
        if map.len() as u64 != self.size {
            return Err(self.changed());
        }
        Ok(self.map.get_or_init(|| map))
    }

    pub(crate) fn changed(&self) -> Error {
        let found = self.file.metadata().map_or(0, |metadata| metadata.len());
        Error::Changed {
            path: self.full_path.clone(),
            expected: self.size,
            found,
        }
    }

    pub(crate) fn out_of_range(&self, what: String, range: Range<u64>, bytes: u64) -> Error {
        let (path, Range { start, end }) = (self.full_path.clone(), range);
        Error::OutOfRange {
            path,
            what,
            start,
            end,
            bytes,
        }
    }
}

fn read_header(file: &File, path: &Path, size: u64) -> Result<Header, Error> {
    let invalid = |cause| Error::Header {
        path: path.to_path_buf(),
        cause: Box::new(cause),
    };
    if size < 8 {
        return Err(invalid(HeaderError::TooShort {
            expected: 8,
            found: size,
        }));
    }
    let mut prefix = [0; 8];
    read_exact_at(file, &mut prefix, 0).map_err(Error::io("read", path))?;
    if &prefix == b"version " && size < 1024 {
        return Err(Error::LfsPointer {
            path: path.to_path_buf(),
        });
    }
    let len = header_len(prefix, size).map_err(invalid)?;
    let mut text = vec![0; len as usize]; // at most 100 MB, and at most the file
    read_exact_at(file, &mut text, 8).map_err(Error::io("read", path))?;
    parse_header(&text, size - 8 - len).map_err(|cause| match cause {
        HeaderError::OutOfRange {
            tensor, expected, ..
        } => Error::Truncated {
            path: path.to_path_buf(),
            size,
            promised: expected.saturating_add(8 + len),
            tensor,
        },
        cause => invalid(cause),
    })
}

#[allow(unsafe_code)]
fn map_file(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only and hands out plain bytes, whose every value is valid. That the
    // file is not truncated or rewritten meanwhile cannot be enforced from here; it is the
    // documented duty of whoever calls `Shard::map`, and nothing in this workspace writes to a
    // checkpoint in place: writers make a new file and rename it.
    unsafe { Mmap::map(file) }
}

/// Fills `buffer` with the bytes of `file` from `offset` on. The place where the file is read next
/// plays no part, so threads may share the file.
///
/// # Errors
/// If the file ends before, or cannot be read.
#[cfg(unix)]
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` with the bytes of `file` from `offset` on. The place where the file is read next
/// plays no part, so threads may share the file.
///
/// # Errors
/// If the file ends before, or cannot be read.
#[cfg(windows)]
pub fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes `bytes` to `file` from `offset` on. The place where the file is written next plays no
/// part, so threads may share the file.
///
/// # Errors
/// If the file cannot be written.
#[cfg(unix)]
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

/// Writes `bytes` to `file` from `offset` on. The place where the file is written next plays no
/// part, so threads may share the file.
///
/// # Errors
/// If the file cannot be written.
#[cfg(windows)]
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        match file.seek_write(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
