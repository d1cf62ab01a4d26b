//! The hash of every cell, by which rows are matched.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use crate::error::Result;
use crate::table::{Kind, Record, Rows, Source, Spill, hash_bytes};

/// At most so many cells are hashed (4 bytes each).
const MAX_CELLS: usize = 100 << 20;
/// Hashes of a derivative that are kept in memory; more are read again as they
/// are needed, which is from the first row to the last.
const HELD_CELLS: usize = 64 << 20;
/// Rows read again together.
const WINDOW: usize = 1 << 20;

/// One 32-bit hash a cell; 0 where there is no value.
#[derive(Clone)]
pub(crate) struct HashMatrix {
    pub(crate) columns: Vec<Vec<u32>>,
    pub(crate) rows: usize,
}

fn hash(kind: Kind, bytes: &[u8]) -> u32 {
    if kind == Kind::Null {
        0
    } else {
        (hash_bytes(bytes) as u32).max(1)
    }
}

impl HashMatrix {
    /// Reads all rows once. `step` is called with the rows done so far.
    pub(crate) fn of(rows: &mut Rows, mut step: impl FnMut(u64) -> Result<()>) -> Result<Self> {
        let count = rows.len() as usize;
        let mut matrix = Self {
            columns: Vec::new(),
            rows: count,
        };
        let mut record = Record::default();
        let widest = (MAX_CELLS / count.max(1)).max(1);
        for row in 0..count {
            rows.read(row as u32, &mut record)?;
            for &cell in record.cells() {
                let column = cell.column as usize;
                if column >= widest {
                    continue;
                }
                if column >= matrix.columns.len() {
                    matrix.columns.resize_with(column + 1, Vec::new);
                }
                let hashes = &mut matrix.columns[column];
                if hashes.len() <= row {
                    if hashes.capacity() == 0 {
                        hashes.reserve_exact(count);
                    }
                    hashes.resize(row, 0);
                    hashes.push(hash(cell.kind, record.bytes(cell)));
                }
            }
            if row % 4096 == 0 {
                step(row as u64)?;
            }
        }
        for hashes in &mut matrix.columns {
            hashes.resize(count, 0);
        }
        Ok(matrix)
    }
}

/// The hashes of a derivative.
pub(crate) enum Hashes {
    Held(HashMatrix),
    /// Column by column in a temporary file.
    Away {
        source: Source,
        columns: usize,
        rows: usize,
    },
}

impl HashMatrix {
    /// Puts the hashes into a temporary file where they are many.
    pub(crate) fn put_away(self, path: &Path) -> Result<Hashes> {
        if self.columns.len() * self.rows <= HELD_CELLS {
            return Ok(Hashes::Held(self));
        }
        self.into_file(path)
    }

    fn into_file(self, path: &Path) -> Result<Hashes> {
        let (columns, rows) = (self.columns.len(), self.rows);
        let mut file = Spill::within(0);
        for column in self.columns {
            for hashes in column.chunks(WINDOW) {
                file.push(path, |out| {
                    out.extend(hashes.iter().flat_map(|hash| hash.to_le_bytes()));
                })?;
            }
        }
        Ok(Hashes::Away {
            source: file.finish(path)?,
            columns,
            rows,
        })
    }
}

impl Hashes {
    /// The rows, in windows to be looked at one after the other.
    pub(crate) fn windows(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, window) = match self {
            Self::Held(matrix) => (matrix.rows, matrix.rows.max(1)),
            Self::Away { rows, .. } => (*rows, WINDOW),
        };
        (0..rows)
            .step_by(window)
            .map(move |first| first..(first + window).min(rows))
    }

    /// The hashes of a window's rows.
    pub(crate) fn window(&self, window: Range<usize>) -> Result<Cow<'_, HashMatrix>> {
        let (source, columns, rows) = match self {
            Self::Held(matrix) => return Ok(Cow::Borrowed(matrix)),
            Self::Away {
                source,
                columns,
                rows,
            } => (source, *columns, *rows),
        };
        let mut buffer = Vec::new();
        let read = (0..columns).map(|column| {
            let place = |row: usize| 4 * (column * rows + row) as u64;
            let bytes = source.read(place(window.start), place(window.end), &mut buffer)?;
            let words = bytes.as_chunks::<4>().0;
            Ok(words.iter().map(|&word| u32::from_le_bytes(word)).collect())
        });
        Ok(Cow::Owned(HashMatrix {
            columns: read.collect::<Result<_>>()?,
            rows: window.len(),
        }))
    }
}

/// Rows by the hash of one column.
pub(crate) struct RowsByHash {
    /// The first row of each hash, open addressing; row + 1, 0 where empty.
    slots: Vec<u32>,
    /// The next row with the same hash, + 1.
    next: Vec<u32>,
}

impl RowsByHash {
    pub(crate) fn of(hashes: &[u32]) -> Self {
        let mut table = Self {
            slots: vec![0; hashes.len() + hashes.len() / 2 + 2],
            next: vec![0; hashes.len()],
        };
        // Backwards, so that each chain runs forwards.
        for row in (0..hashes.len()).rev() {
            if hashes[row] != 0 {
                let slot = table.slot(hashes, hashes[row]);
                table.next[row] = table.slots[slot];
                table.slots[slot] = row as u32 + 1;
            }
        }
        table
    }

    fn slot(&self, hashes: &[u32], hash: u32) -> usize {
        let mixed = u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let mut slot = ((mixed * self.slots.len() as u64) >> 32) as usize;
        while self.slots[slot] != 0 && hashes[self.slots[slot] as usize - 1] != hash {
            slot = if slot + 1 == self.slots.len() {
                0
            } else {
                slot + 1
            };
        }
        slot
    }

    /// The rows with a hash, in order.
    pub(crate) fn rows<'a>(&'a self, hashes: &[u32], hash: u32) -> impl Iterator<Item = u32> + 'a {
        let first = if hash == 0 {
            0
        } else {
            self.slots[self.slot(hashes, hash)]
        };
        std::iter::successors(first.checked_sub(1), |&row| {
            self.next[row as usize].checked_sub(1)
        })
    }

    /// The first row with a hash; it is dropped from the chain while others
    /// follow, so that equal rows are used one after the other.
    pub(crate) fn take(&mut self, hashes: &[u32], hash: u32) -> Option<u32> {
        if hash == 0 {
            return None;
        }
        let slot = self.slot(hashes, hash);
        let row = self.slots[slot].checked_sub(1)?;
        if self.next[row as usize] != 0 {
            self.slots[slot] = self.next[row as usize];
        }
        Some(row)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hashes_that_were_put_away_come_back_in_windows() {
        let rows = WINDOW + 5;
        let column = |n: u32| (0..rows as u32).map(|row| row.wrapping_mul(n)).collect();
        let matrix = HashMatrix {
            columns: vec![column(3), column(7), column(11)],
            rows,
        };
        let away = matrix.clone().into_file(Path::new("test")).unwrap();
        assert_eq!(away.windows().count(), 2);
        for window in away.windows() {
            let found = away.window(window.clone()).unwrap();
            assert_eq!(found.rows, window.len());
            for (found, all) in found.columns.iter().zip(&matrix.columns) {
                assert!(*found == all[window.clone()]);
            }
        }
        assert_eq!(Hashes::Held(matrix).windows().count(), 1);
    }

    #[test]
    fn rows_are_found_by_hash_in_order() {
        let hashes: Vec<u32> = (0..5000u32).map(|n| n * n % 1009).collect();
        let mut table = RowsByHash::of(&hashes);
        for hash in 1..1009 {
            let expected: Vec<u32> = (0..5000)
                .filter(|&row| hashes[row as usize] == hash)
                .collect();
            let found: Vec<u32> = table.rows(&hashes, hash).collect();
            assert_eq!(found, expected, "{hash}");
            for (n, &row) in expected.iter().enumerate() {
                let taken = table.take(&hashes, hash);
                assert_eq!(taken, Some(row), "{hash}, {n}");
            }
        }
        assert_eq!(table.take(&hashes, 2000), None);
        assert_eq!(RowsByHash::of(&[]).take(&[], 1), None);
    }
}
