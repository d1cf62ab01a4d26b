//! Quantized tensors, set aside on disk until the header that names them can be written.
//!
//! A safetensors file is laid out by type, not by layer, so a layer's parts lie far apart; keeping
//! them in memory would keep the whole model there.

use std::collections::HashMap;
use std::path::Path;

use sparse_checkpoint::TensorWriter;

use crate::Error;
use crate::format::Part;
use crate::scratch::ScratchFile;

/// A file of parts by tensor name; it is removed when dropped.
#[derive(Debug)]
pub(crate) struct Spool {
    file: ScratchFile,
    end: u64,
    places: HashMap<String, (u64, u64)>,
}

const CHUNK: usize = 1 << 20;

impl Spool {
    /// An empty spool in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Spool, Error> {
        Ok(Spool {
            file: ScratchFile::create(dir.join(".spool.tmp"))?,
            end: 0,
            places: HashMap::new(),
        })
    }

    /// Sets a tensor aside.
    pub(crate) fn put(&mut self, part: &Part) -> Result<(), Error> {
        self.file.write_at(self.end, &part.bytes)?;
        let length = part.bytes.len() as u64;
        self.places
            .insert(part.spec.name.clone(), (self.end, length));
        self.end += length;
        Ok(())
    }

    /// Copies a tensor that was set aside to `out`; `false` if there is none of this name.
    pub(crate) fn copy(&mut self, name: &str, out: &mut TensorWriter<'_>) -> Result<bool, Error> {
        let Some(&(mut start, mut left)) = self.places.get(name) else {
            return Ok(false);
        };
        let mut buffer = vec![0; CHUNK.min(left as usize)];
        while left > 0 {
            let length = buffer.len().min(left as usize);
            let buffer = &mut buffer[..length];
            self.file.read_at(start, buffer)?;
            out.write_all(buffer)?;
            start += length as u64;
            left -= length as u64;
        }
        Ok(true)
    }
}
