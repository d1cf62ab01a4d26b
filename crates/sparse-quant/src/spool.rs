//! Quantized tensors, set aside on disk until the header that names them can be written.
//!
//! A safetensors file is laid out by type, not by layer, so a layer's parts lie far apart; keeping
//! them in memory would keep the whole model there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sparse_checkpoint::TensorWriter;

use crate::Error;
use crate::format::Part;

/// A file of parts by tensor name; it is removed when dropped.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: File,
    end: u64,
    places: HashMap<String, (u64, u64)>,
}

const CHUNK: usize = 1 << 20;

impl Spool {
    /// An empty spool in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Spool, Error> {
        let path = dir.join(".spool.tmp");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        Ok(Spool {
            path,
            file,
            end: 0,
            places: HashMap::new(),
        })
    }

    /// Sets a tensor aside.
    pub(crate) fn put(&mut self, part: &Part) -> Result<(), Error> {
        self.file
            .write_all(&part.bytes)
            .map_err(Error::io("write", &self.path))?;
        let length = part.bytes.len() as u64;
        self.places
            .insert(part.spec.name.clone(), (self.end, length));
        self.end += length;
        Ok(())
    }

    /// Copies a tensor that was set aside to `out`; `false` if there is none of this name.
    pub(crate) fn copy(&mut self, name: &str, out: &mut TensorWriter<'_>) -> Result<bool, Error> {
        let Some(&(start, mut left)) = self.places.get(name) else {
            return Ok(false);
        };
        self.file
            .seek(SeekFrom::Start(start))
            .map_err(Error::io("read", &self.path))?;
        let mut buffer = vec![0; CHUNK.min(left as usize)];
        while left > 0 {
            let length = buffer.len().min(left as usize);
            let buffer = &mut buffer[..length];
            self.file
                .read_exact(buffer)
                .map_err(Error::io("read", &self.path))?;
            out.write_all(buffer)?;
            left -= length as u64;
        }
        Ok(true)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
