//! Which base row each row comes from: nothing for the next row, a gap for a
//! filter, an index among the unused rows for a shuffle.

use crate::coding::{Bit, BitCoder, Number, Remaining, Symbol};
use crate::matching::NEW;

const NEXT: usize = 0;
const FROM_NOWHERE: usize = 1;
const FORWARD: usize = 2;
const UNUSED: usize = 3;
const AGAIN: usize = 4;
const UNUSED_NEAR: usize = 5;
/// The row of the row before, or the one before that: rows that stand twice, or
/// in reverse. Writers before [`crate::artifact::REQUIRED_REFERENCES`] had no
/// such steps, but room for them.
const SAME: usize = 6;
const BACK: usize = 7;

/// A gap longer than this is a jump.
const LONGEST_GAP: u32 = 4096;

/// The model of a sequence of references.
pub(crate) struct References {
    remaining: Remaining,
    rows: u32,
    /// The reference expected if the sequence runs on.
    next: u32,
    history: usize,
    steps: Vec<Symbol<8>>,
    skip: [Bit; 64],
    gap: Number,
    rank: Number,
    /// How much shorter the indices of late were than random ones, in 1/16 bit.
    shorter: i32,
}

impl References {
    /// `remaining` are the base rows that the files before did not use; where
    /// they used all, a file may use all again.
    pub(crate) fn new(remaining: Remaining) -> Self {
        let rows = remaining.size();
        Self {
            remaining: if remaining.left() > 0 {
                remaining
            } else {
                Remaining::new(rows)
            },
            rows,
            next: 0,
            history: 0,
            steps: vec![Symbol::new(); 64],
            skip: [Bit::new(); 64],
            gap: Number::new(),
            rank: Number::new(),
            shorter: 0,
        }
    }

    /// The base rows that are not used yet.
    pub(crate) fn into_remaining(self) -> Remaining {
        self.remaining
    }

    /// How the sequence goes on with `row`.
    fn step(&self, row: u32) -> usize {
        match row {
            NEW => FROM_NOWHERE,
            _ if row == self.next => NEXT,
            _ if row.checked_add(1) == Some(self.next) => SAME,
            _ if row.checked_add(2) == Some(self.next) => BACK,
            _ if row > self.next && row - self.next <= LONGEST_GAP && self.near(row) => FORWARD,
            // A shuffle within a window leaves indices shorter than a whole one.
            _ if self.remaining.contains(row) => {
                if self.shorter > 40 {
                    UNUSED_NEAR
                } else {
                    UNUSED
                }
            }
            _ => AGAIN,
        }
    }

    /// Whether a gap is cheaper than an index among the unused rows.
    fn near(&self, row: u32) -> bool {
        let gap = u64::from(row - self.next);
        // After jumps a small gap is an accident; otherwise gaps are the rule.
        let jumped = matches!(self.history % 8, UNUSED | UNUSED_NEAR);
        !jumped || gap * 64 < u64::from(self.rows) && gap < 8
    }

    /// Codes the reference of one row. `None` if a damaged stream names a row
    /// that does not exist.
    pub(crate) fn code<C: BitCoder>(&mut self, coder: &mut C, row: u32) -> Option<u32> {
        let step = self.step(row);
        let step = self.steps[self.history].code(coder, step);
        let found = match step {
            NEXT => self.next,
            FROM_NOWHERE => NEW,
            FORWARD => {
                let gap = self.code_gap(coder, row.wrapping_sub(self.next).wrapping_sub(1))?;
                self.next.checked_add(gap)?.checked_add(1)?
            }
            UNUSED | UNUSED_NEAR => {
                let left = self.remaining.left();
                if left == 0 {
                    return None;
                }
                let rank = if self.remaining.contains(row) {
                    self.remaining.rank(row)
                } else {
                    0
                };
                let rank = match step {
                    UNUSED => coder.uniform(rank, left),
                    _ => u32::try_from(self.rank.code(coder, u64::from(rank))).ok()?,
                };
                let bits = |value: u32| 32 - value.leading_zeros() as i32;
                self.shorter += (bits(left) - bits(rank) - 1) - self.shorter / 16;
                self.remaining.select(rank)?
            }
            AGAIN => coder.uniform(row, self.rows),
            SAME => self.next.checked_sub(1)?,
            BACK => self.next.checked_sub(2)?,
            _ => return None,
        };
        self.history = (self.history * 8 + step) % 64;
        if found != NEW {
            if found >= self.rows {
                return None;
            }
            self.remaining.remove(found);
            self.next = found + 1;
        }
        Some(found)
    }

    /// A gap: one adaptive bit a skipped row while it is short, as in a random
    /// subset; then its length.
    fn code_gap<C: BitCoder>(&mut self, coder: &mut C, gap: u32) -> Option<u32> {
        const UNARY: u32 = 48;
        for skipped in 0..UNARY {
            if !self.skip[skipped as usize].code(coder, skipped < gap) {
                return Some(skipped);
            }
        }
        let rest = self.gap.code(coder, u64::from(gap.saturating_sub(UNARY)));
        UNARY.checked_add(u32::try_from(rest).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::{Decoder, Encoder};

    fn cost(rows: u32, references: &[u32]) -> usize {
        let mut encoder = Encoder::new();
        let mut model = References::new(Remaining::new(rows));
        for &row in references {
            assert_eq!(model.code(&mut encoder, row), Some(row));
        }
        let bytes = encoder.finish();
        let mut decoder = Decoder::new(&bytes);
        let mut model = References::new(Remaining::new(rows));
        for &row in references {
            assert_eq!(model.code(&mut decoder, 0), Some(row));
        }
        bytes.len()
    }

    fn shuffled(rows: u32) -> Vec<u32> {
        let mut out: Vec<u32> = (0..rows).collect();
        let mut state = 9u64;
        for index in (1..out.len()).rev() {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            out.swap(index, (state >> 33) as usize % (index + 1));
        }
        out
    }

    #[test]
    fn a_shuffle_costs_its_permutation() {
        let rows = 7_473u32;
        let ideal: f64 = (1..=rows).map(|n| f64::from(n).log2()).sum::<f64>() / 8.0;
        let cost = cost(rows, &shuffled(rows)) as f64;
        assert!(cost < ideal * 1.02, "{cost} for {ideal}");
    }

    #[test]
    fn a_copy_costs_nothing_and_a_filter_its_subset() {
        assert!(cost(100_000, &(0..100_000).collect::<Vec<_>>()) < 30);
        let mut kept: Vec<u32> = shuffled(10_000).into_iter().take(7_000).collect();
        kept.sort_unstable();
        // 10,000 * H(0.7) / 8
        assert!(
            (cost(10_000, &kept) as f64) < 1_101.0 * 1.03,
            "{}",
            cost(10_000, &kept)
        );
    }

    #[test]
    fn a_shuffle_within_windows_costs_its_windows() {
        let window = shuffled(1_000);
        let rows: Vec<u32> = (0..100)
            .flat_map(|block| window.iter().map(move |row| block * 1_000 + row))
            .collect();
        let ideal: f64 = 100.0 * (1..=1_000u32).map(|n| f64::from(n).log2()).sum::<f64>() / 8.0;
        let cost = cost(100_000, &rows) as f64;
        assert!(cost < ideal * 1.10, "{cost} for {ideal}");
    }

    #[test]
    fn rows_twice_and_in_reverse_cost_nothing() {
        let twice: Vec<u32> = (0..10_000).flat_map(|row| [row, row]).collect();
        assert!(cost(10_000, &twice) < 60, "{}", cost(10_000, &twice));
        let reverse: Vec<u32> = (0..10_000).rev().collect();
        assert!(cost(10_000, &reverse) < 60, "{}", cost(10_000, &reverse));
    }

    #[test]
    fn rows_may_repeat_and_be_new() {
        cost(50, &[3, 3, NEW, 49, 0, 1, 2, 2, NEW, NEW, 48]);
    }
}
