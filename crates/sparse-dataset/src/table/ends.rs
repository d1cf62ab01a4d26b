//! Where rows end, in five bytes a row.

use super::record::MAX_RECORD;

/// Rows that share one full offset.
const GROUP: usize = 8;

/// The end of each row of a file, from the first on.
#[derive(Default)]
pub(crate) struct Ends {
    /// The start of every eighth row.
    starts: Vec<u64>,
    /// The end of each row, from that start.
    ends: Vec<u32>,
    last: u64,
}

impl Ends {
    /// Adds a row. `false` if its group takes more than 4 GB.
    pub(crate) fn push(&mut self, end: u64) -> bool {
        if self.ends.len().is_multiple_of(GROUP) {
            self.starts.push(self.last);
        }
        let start = self.starts.last().copied().unwrap_or(0);
        let Ok(within) = u32::try_from(end - start) else {
            return false;
        };
        self.ends.push(within);
        self.last = end;
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The end of the last row.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The place of a row.
    #[inline]
    pub(crate) fn span(&self, row: u32) -> (u64, u64) {
        let row = row as usize;
        let end = |row: usize| self.starts[row / GROUP] + u64::from(self.ends[row]);
        let start = if row.is_multiple_of(GROUP) {
            self.starts[row / GROUP]
        } else {
            end(row - 1)
        };
        (start, end(row))
    }
}

/// Finds the ends of lines piece by piece.
#[derive(Default)]
pub(super) struct LineEnds {
    ends: Ends,
    seen: u64,
    failed: bool,
}

impl LineEnds {
    pub(super) fn feed(&mut self, piece: &[u8]) {
        for at in memchr::memchr_iter(b'\n', piece) {
            self.push(self.seen + at as u64 + 1);
        }
        self.seen += piece.len() as u64;
    }

    fn push(&mut self, end: u64) {
        self.failed =
            self.failed || end - self.ends.last() > MAX_RECORD as u64 || !self.ends.push(end);
    }

    /// The ends, the last line's too; nothing where a line is too long.
    pub(super) fn finish(mut self) -> Option<Ends> {
        if self.ends.last() < self.seen {
            self.push(self.seen);
        }
        (!self.failed).then_some(self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_where_they_were_put() {
        let all: Vec<u64> = (1..100u64).map(|n| n * n * 1_000_003).collect();
        let mut ends = Ends::default();
        assert!(all.iter().all(|&end| ends.push(end)));
        assert_eq!((ends.len(), ends.last()), (99, all[98]));
        for row in 0..99 {
            let start = if row == 0 { 0 } else { all[row - 1] };
            assert_eq!(ends.span(row as u32), (start, all[row]));
        }
        assert!(!ends.push(1 << 40));
    }
}
