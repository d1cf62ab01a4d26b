//! The hash of every cell, by which rows are matched.

use crate::error::Result;
use crate::table::{Kind, Record, Rows, hash_bytes};

/// At most so many cells are hashed (4 bytes each).
const MAX_CELLS: usize = 160 << 20;

/// One 32-bit hash a cell; 0 where there is no value.
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

/// Rows by the hash of one column.
pub(crate) struct RowsByHash {
    /// The first row of each hash, open addressing; row + 1, 0 where empty.
    slots: Vec<u32>,
    /// The next row with the same hash, + 1.
    next: Vec<u32>,
    mask: usize,
}

fn place(hash: u32) -> usize {
    (u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as usize
}

impl RowsByHash {
    pub(crate) fn of(hashes: &[u32]) -> Self {
        let mask = (hashes.len() * 2).next_power_of_two().max(2) - 1;
        let mut table = Self {
            slots: vec![0; mask + 1],
            next: vec![0; hashes.len()],
            mask,
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
        let mut slot = place(hash) & self.mask;
        while self.slots[slot] != 0 && hashes[self.slots[slot] as usize - 1] != hash {
            slot = (slot + 1) & self.mask;
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
