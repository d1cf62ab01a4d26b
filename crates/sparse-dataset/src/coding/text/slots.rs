//! What was seen under a context: adaptive probabilities in cache lines found
//! by hash.

/// A probability of 22 bits over a count of observations of 10 bits. The top
/// bit is stored inverted: a fresh slot is zero, and so are untouched tables.
#[derive(Clone, Copy)]
pub(super) struct Slot(u32);

/// `2 / (2 n + 3)`: the first observations move the estimate as the
/// Krichevsky-Trofimov estimator would.
const RATES: [u16; 256] = {
    let mut rates = [0; 256];
    let mut n = 0;
    while n < 256 {
        rates[n] = (65_536 * 2 / (2 * n + 3)) as u16;
        n += 1;
    }
    rates
};

impl Slot {
    pub(super) const FRESH: Self = Self(0);

    /// The probability of a set bit, in 65536ths.
    #[inline]
    pub(super) fn p(self) -> u16 {
        (self.0 >> 16) as u16 ^ 0x8000
    }

    #[inline]
    pub(super) fn seen(self) -> usize {
        (self.0 & 1023) as usize
    }

    /// Takes note of a bit; `limit` observations (below 256) at most weigh in.
    #[inline]
    pub(super) fn learn(&mut self, bit: bool, limit: u32) {
        let seen = self.0 & 1023;
        let p = i64::from((self.0 ^ 1 << 31) >> 10);
        let target = if bit { (1 << 22) - 1 } else { 0 };
        let p = p + (((target - p) * i64::from(RATES[seen as usize])) >> 16);
        self.0 = ((p as u32) << 10 | (seen + u32::from(seen < limit))) ^ 1 << 31;
    }
}

/// Fifteen slots, the nodes of half a byte under one context, as plain numbers:
/// the system hands out zeroed memory as it is touched. Place 0 holds the check.
type Line = [u32; 16];

/// Lines of all contexts.
#[derive(Clone)]
pub(super) struct Lines {
    lines: Vec<Line>,
    mask: usize,
}

impl Lines {
    /// `2^bits` lines of 64 bytes.
    pub(super) fn new(bits: u32) -> Self {
        Self {
            lines: vec![[0; 16]; 1 << bits],
            mask: (1 << bits) - 1,
        }
    }

    /// The line of a context, which takes over the less used of two places
    /// where neither is its own.
    #[inline]
    pub(super) fn find(&mut self, key: u64) -> usize {
        let check = (key >> 32) as u32 | 1;
        let first = key as usize & self.mask;
        if self.lines[first][0] == check {
            return first;
        }
        let second = first ^ 1;
        if self.lines[second][0] == check {
            return second;
        }
        let used = |line: usize| Slot(self.lines[line][1]).seen();
        let victim = if used(first) <= used(second) {
            first
        } else {
            second
        };
        self.lines[victim] = [0; 16];
        self.lines[victim][0] = check;
        victim
    }

    #[inline]
    pub(super) fn slot(&self, line: usize, node: usize) -> Slot {
        Slot(self.lines[line & self.mask][node & 15])
    }

    #[inline]
    pub(super) fn learn(&mut self, line: usize, node: usize, bit: bool, limit: u32) {
        let place = &mut self.lines[line & self.mask][node & 15];
        let mut slot = Slot(*place);
        slot.learn(bit, limit);
        *place = slot.0;
    }
}

/// Follows an earlier occurrence of the last bytes.
#[derive(Clone)]
pub(super) struct Match {
    minimum: usize,
    table: Vec<u32>,
    at: usize,
    pub(super) length: usize,
    counters: [Slot; 32],
}

impl Match {
    /// Looks for at least `minimum` equal bytes through a table of `2^bits`.
    pub(super) fn new(minimum: usize, bits: u32) -> Self {
        Self {
            minimum,
            table: vec![0; 1 << bits],
            at: 0,
            length: 0,
            counters: [Slot::FRESH; 32],
        }
    }

    /// Moves on by the byte that ends the history.
    pub(super) fn advance(&mut self, history: &[u8]) {
        let end = history.len();
        if self.length > 0 && history[self.at] == history[end - 1] {
            self.at += 1;
            self.length = (self.length + 1).min(400);
        } else {
            self.length = 0;
        }
        if end < self.minimum {
            return;
        }
        let key = history[end - self.minimum..].iter().fold(0u64, |h, &b| {
            (h + u64::from(b) + 1).wrapping_mul(0x2F0B_4C47_9E37_79B1)
        });
        let index = (key >> (64 - self.table.len().trailing_zeros())) as usize;
        if self.length == 0 {
            let candidate = self.table[index] as usize;
            if candidate > 0 {
                let common = history[..candidate]
                    .iter()
                    .rev()
                    .zip(history.iter().rev())
                    .take(64)
                    .take_while(|(a, b)| a == b)
                    .count();
                if common >= self.minimum {
                    self.length = common;
                    self.at = candidate;
                }
            }
        }
        self.table[index] = end as u32;
    }

    /// How far the match reaches back, in 32 steps; 0 where there is none.
    #[inline]
    pub(super) fn bucket(&self) -> usize {
        match self.length {
            length @ 0..16 => length,
            length @ 16..32 => 16 + (length - 16) / 4,
            length => (20 + (length - 32) / 32).min(31),
        }
    }

    /// The byte that followed the earlier occurrence.
    #[inline]
    pub(super) fn expected(&self, history: &[u8]) -> Option<u8> {
        (self.length > 0).then(|| history[self.at])
    }

    /// The probability that the expected bit is right.
    #[inline]
    pub(super) fn trust(&self) -> u16 {
        self.counters[self.bucket()].p()
    }

    /// Takes note of whether the expected bit was right.
    #[inline]
    pub(super) fn learn(&mut self, right: bool) {
        let bucket = self.bucket();
        self.counters[bucket].learn(right, 250);
        if !right {
            self.length = 0;
        }
    }
}
