//! A record in memory: the cells of one row, whatever format it came from.

/// How the bytes of a cell are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Decoded text; the format's usual spelling reproduces the file's bytes.
    Text = 0,
    /// Bytes as they stand in the file: numbers, `true`, unusual spellings.
    Raw = 1,
    /// No value.
    Null = 2,
    /// A list in compact JSON; the format's usual spelling reproduces the file.
    Nested = 3,
}

impl Kind {
    pub(crate) fn from_index(index: usize) -> Self {
        [Self::Text, Self::Raw, Self::Null, Self::Nested][index & 3]
    }
}

/// One cell of a [`Record`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) column: u32,
    pub(crate) kind: Kind,
    /// Whether it is known to be a JSON string that stands in its file as it
    /// is, between quotes. Where it is not known it may be so too.
    pub(crate) plain: bool,
    start: u32,
    end: u32,
}

/// One row. Its cells stand in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    /// Which template spells this record, see [`crate::text::Template`].
    pub(crate) template: u32,
    /// The cells of the record itself come first, then those that it inherits
    /// from the record before (a SQuAD question inherits its paragraph).
    pub(crate) own: usize,
    cells: Vec<Cell>,
    bytes: Vec<u8>,
}

/// The most bytes a record may have: several copies of one are in memory.
pub(crate) const MAX_RECORD: usize = 128 << 20;

impl Record {
    pub(crate) fn clear(&mut self) {
        self.template = 0;
        self.own = 0;
        self.cells.clear();
        self.bytes.clear();
    }

    pub(crate) fn push(&mut self, column: u32, kind: Kind, bytes: &[u8]) {
        self.push_with(column, kind, |out| out.extend_from_slice(bytes));
    }

    pub(crate) fn push_with(&mut self, column: u32, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len() as u32;
        write(&mut self.bytes);
        let end = self.bytes.len() as u32;
        self.cells.push(Cell {
            column,
            kind,
            plain: false,
            start,
            end,
        });
        self.own = self.cells.len();
    }

    /// Adds a string that stands in its file as it is, see [`Cell::plain`].
    pub(crate) fn push_plain(&mut self, column: u32, bytes: &[u8]) {
        self.push(column, Kind::Text, bytes);
        if let Some(cell) = self.cells.last_mut() {
            cell.plain = true;
        }
    }

    /// Adds a cell that `write` appends, or nothing if it says `false`.
    pub(crate) fn try_push(
        &mut self,
        column: u32,
        kind: Kind,
        write: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> bool {
        let (start, own) = (self.bytes.len(), self.own);
        let mut written = false;
        self.push_with(column, kind, |out| written = write(out));
        if !written {
            self.cells.pop();
            self.own = own;
            self.bytes.truncate(start);
        }
        written
    }

    /// Adds a cell that the record has only through its parent.
    pub(crate) fn inherit(&mut self, column: u32, kind: Kind, bytes: &[u8]) {
        let own = self.own;
        self.push(column, kind, bytes);
        self.own = own;
    }

    /// The bytes of all cells.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    pub(crate) fn bytes(&self, cell: Cell) -> &[u8] {
        &self.bytes[cell.start as usize..cell.end as usize]
    }

    /// The first cell of a column.
    pub(crate) fn get(&self, column: usize) -> Option<(Kind, &[u8])> {
        let cell = self.cell(column)?;
        Some((cell.kind, self.bytes(cell)))
    }

    /// The first cell of a column.
    pub(crate) fn cell(&self, column: usize) -> Option<Cell> {
        let wanted = column as u32;
        match self.cells.get(column) {
            Some(cell) if cell.column == wanted => Some(*cell),
            _ => self
                .cells
                .iter()
                .find(|cell| cell.column == wanted)
                .copied(),
        }
    }
}

/// A fast 64-bit hash of bytes, for finding equal cells within one run (it is
/// never stored).
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    const A: u64 = 0x9E37_79B9_7F4A_7C15;
    const B: u64 = 0xD6E8_FEB8_6659_FD93;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let mut state = A ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(16);
    for chunk in &mut chunks {
        let (low, high) = chunk.split_at(8);
        state = fold(word(low) ^ state, word(high) ^ B);
    }
    let rest = chunks.remainder();
    let (low, high) = rest.split_at(rest.len().min(8));
    fold(fold(word(low) ^ state, word(high) ^ B), A)
}

fn word(bytes: &[u8]) -> u64 {
    let mut padded = [0u8; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}
