//! What a text's windows are to a model on the way through it, set aside on disk.
//!
//! 128 windows of a small model's rows are several times as large as its weights, and a block works
//! on a few of them at a time.

use std::path::PathBuf;

use crate::Error;
use crate::scratch::ScratchFile;

/// Values of one batch of windows after another.
#[derive(Debug)]
pub(crate) struct RowFile {
    file: ScratchFile,
    /// Values of each batch.
    batches: Vec<usize>,
}

impl RowFile {
    /// Nothing yet, in a file at `path`.
    pub(crate) fn create(path: PathBuf) -> Result<RowFile, Error> {
        Ok(RowFile {
            file: ScratchFile::create(path)?,
            batches: Vec::new(),
        })
    }

    /// Sets a batch aside: one after those that are there, or another in the place of one of them.
    /// All are of the size of the first, but for the last, which may have fewer values.
    pub(crate) fn write(&mut self, batch: usize, values: &[f32]) -> Result<(), Error> {
        if batch == self.batches.len() {
            self.batches.push(values.len());
        }
        self.batches[batch] = values.len();
        let start = self.start(batch);
        self.file.write_at(start, bytemuck::cast_slice(values))
    }

    /// Values of a batch.
    pub(crate) fn len_of(&self, batch: usize) -> usize {
        self.batches[batch]
    }

    /// Reads a batch into `values`, which are as many as it has.
    pub(crate) fn read(&self, batch: usize, values: &mut [f32]) -> Result<(), Error> {
        let start = self.start(batch);
        self.file.read_at(start, bytemuck::cast_slice_mut(values))
    }

    fn start(&self, batch: usize) -> u64 {
        (batch * self.batches[0] * size_of::<f32>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_back_as_they_were_last_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = RowFile::create(dir.path().join("rows")).unwrap();
        for (batch, (len, value)) in [(60, 1.0), (60, 2.0), (15, 3.0)].into_iter().enumerate() {
            file.write(batch, &vec![value; len]).unwrap();
        }
        file.write(1, &[f32::MIN_POSITIVE; 60]).unwrap();
        for (batch, len, value) in [(2, 15, 3.0), (1, 60, f32::MIN_POSITIVE), (0, 60, 1.0)] {
            let mut found = vec![0.0; file.len_of(batch)];
            file.read(batch, &mut found).unwrap();
            assert_eq!(found, vec![value; len]);
        }
        drop(file);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
