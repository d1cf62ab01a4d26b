//! The rows of a text between two blocks, set aside on disk.
//!
//! 128 windows of a small model's rows are several times as large as its weights, and a block works
//! on a few of them at a time.

use std::path::Path;

use sparse_engine::Hidden;

use crate::Error;
use crate::scratch::ScratchFile;

/// Batches of windows of one length.
#[derive(Debug)]
pub(crate) struct RowFile {
    file: ScratchFile,
    /// Tokens of a window.
    window: usize,
    /// Windows of each batch.
    batches: Vec<usize>,
    /// Bytes of a window's rows, and of all that was written.
    window_bytes: u64,
    end: u64,
}

impl RowFile {
    /// No batches yet, in `dir`; they will be of windows of `window` tokens.
    pub(crate) fn create(dir: &Path, window: usize) -> Result<RowFile, Error> {
        Ok(RowFile {
            file: ScratchFile::create(dir.join(".rows.tmp"))?,
            window,
            batches: Vec::new(),
            window_bytes: 0,
            end: 0,
        })
    }

    /// Adds a batch of `windows` windows; only the last may have fewer than those before it.
    pub(crate) fn push(&mut self, windows: usize, rows: &Hidden) -> Result<(), Error> {
        let bytes: &[u8] = bytemuck::cast_slice(rows.data());
        self.file.write_at(self.end, bytes)?;
        self.end += bytes.len() as u64;
        self.window_bytes = (bytes.len() / windows.max(1)) as u64;
        self.batches.push(windows);
        Ok(())
    }

    /// Number of batches.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Reads a batch into `rows`, which is made anew where it is of another size.
    pub(crate) fn read(&mut self, batch: usize, rows: &mut Hidden) -> Result<(), Error> {
        let (windows, width) = (self.batches[batch], rows.rows().width());
        if rows.rows().count() != windows * self.window {
            *rows = Hidden::zeros(width, (0..windows).map(|_| self.window));
        }
        let start = self.start(batch);
        self.file
            .read_at(start, bytemuck::cast_slice_mut(rows.data_mut()))
    }

    /// Replaces a batch by what a block has made of it.
    pub(crate) fn write(&mut self, batch: usize, rows: &Hidden) -> Result<(), Error> {
        let start = self.start(batch);
        self.file.write_at(start, bytemuck::cast_slice(rows.data()))
    }

    fn start(&self, batch: usize) -> u64 {
        let before: usize = self.batches[..batch].iter().sum();
        before as u64 * self.window_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(windows: usize, value: f32) -> Hidden {
        let mut rows = Hidden::zeros(3, (0..windows).map(|_| 5));
        rows.data_mut().fill(value);
        rows
    }

    #[test]
    fn batches_come_back_as_they_were_last_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = RowFile::create(dir.path(), 5).unwrap();
        for (windows, value) in [(4, 1.0), (4, 2.0), (1, 3.0)] {
            file.push(windows, &rows(windows, value)).unwrap();
        }
        file.write(1, &rows(4, f32::MIN_POSITIVE)).unwrap();
        let mut found = Hidden::zeros(3, [5]);
        for (batch, windows, value) in [(2, 1, 3.0), (1, 4, f32::MIN_POSITIVE), (0, 4, 1.0)] {
            file.read(batch, &mut found).unwrap();
            assert_eq!(found.data(), rows(windows, value).data());
        }
        drop(file);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
