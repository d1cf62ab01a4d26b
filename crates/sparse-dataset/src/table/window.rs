//! What of a file is in memory while its rows are read: what follows the last
//! row where rows are read in order, and rows that were gathered beforehand.

use super::source::Source;
use crate::error::Result;

/// Bytes read ahead where rows are read in order.
const AHEAD: u64 = 256 << 10;
/// Rows with no more than this and their own length between them are read
/// together.
const GAP: u64 = 1 << 10;
/// Bytes that gathered rows may take, with the gaps between them.
pub(super) const GATHERED: u64 = 64 << 20;

/// What a row takes at most when it is gathered.
pub(super) fn room((start, end): (u64, u64)) -> u64 {
    2 * (end - start) + GAP
}

/// A part of the file that is in memory.
struct Stretch {
    start: u64,
    end: u64,
    /// Where it is among the gathered bytes.
    at: usize,
}

/// The parts of one file that are in memory.
#[derive(Default)]
pub(crate) struct Window {
    ahead: Vec<u8>,
    start: u64,
    /// Where the last row ended.
    next: u64,
    stretches: Vec<Stretch>,
    gathered: Vec<u8>,
}

impl Window {
    /// The bytes `start..end` of a row.
    #[inline]
    pub(super) fn row<'a>(
        &'a mut self,
        source: &'a Source,
        start: u64,
        end: u64,
    ) -> Result<&'a [u8]> {
        if source.is_held() {
            return source.read(start, end, &mut self.ahead);
        }
        let after = self.stretches.partition_point(|s| s.start <= start);
        if let Some(stretch) = self.stretches[..after].last()
            && end <= stretch.end
        {
            let from = stretch.at + (start - stretch.start) as usize;
            return Ok(&self.gathered[from..from + (end - start) as usize]);
        }
        let held_end = self.start + self.ahead.len() as u64;
        if start < self.start || end > held_end {
            let in_order = start >= self.next && start - self.next < AHEAD / 4;
            let until = if in_order {
                end.max(start + AHEAD)
            } else {
                end
            };
            let length = source.read(start, until, &mut self.ahead)?.len();
            self.ahead.truncate(length);
            self.start = start;
        }
        self.next = end;
        let (from, to) = (start - self.start, end - self.start);
        let to = to.min(self.ahead.len() as u64);
        Ok(&self.ahead[from.min(to) as usize..to as usize])
    }

    /// Reads rows that will be asked for in another order; those gathered
    /// before are forgotten.
    pub(super) fn gather(&mut self, source: &Source, mut rows: Vec<(u64, u64)>) -> Result<()> {
        rows.sort_unstable();
        self.stretches.clear();
        let mut at = 0;
        for (start, end) in rows {
            match self.stretches.last_mut() {
                Some(last) if start <= last.end + (end - start) + GAP => {
                    at += end.saturating_sub(last.end) as usize;
                    last.end = last.end.max(end);
                }
                _ => {
                    self.stretches.push(Stretch { start, end, at });
                    at += (end - start) as usize;
                }
            }
        }
        self.gathered.resize(at, 0);
        if self.gathered.capacity() > 2 * at {
            // A base of many files has many windows.
            self.gathered.shrink_to(at);
        }
        for stretch in &self.stretches {
            let length = (stretch.end - stretch.start) as usize;
            source.read_into(
                stretch.start,
                &mut self.gathered[stretch.at..stretch.at + length],
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use super::*;

    #[test]
    fn rows_are_the_same_gathered_ahead_or_alone() {
        let bytes: Vec<u8> = (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let mut file = crate::output::unlinked_file().unwrap();
        file.write_all(&bytes).unwrap();
        let source = Source::from_file(Path::new("test"), file, bytes.len() as u64);
        let spans: Vec<(u64, u64)> = [7u64, 40, 40, 900_000, 0, 5_000, 6_000, 1_199_990, 6_010]
            .iter()
            .map(|&start| (start, (start + 10 + start % 1_500).min(1_200_000)))
            .collect();
        let mut window = Window::default();
        for gathered in [0, 3, spans.len()] {
            window.gather(&source, spans[..gathered].to_vec()).unwrap();
            for &(start, end) in &spans {
                let row = window.row(&source, start, end).unwrap();
                assert_eq!(row, &bytes[start as usize..end as usize]);
            }
        }
    }
}
