//! How hard zstd tries: as hard as fits the time that the rest of a file takes.

use crate::spec::{Effort, SMALL_FILE};

/// Levels, and about how many bytes each does in the time of one of level 19
/// (3 MB/s).
const LEVELS: [(i32, u64); 3] = [(19, 1), (9, 12), (3, 64)];
/// Bytes of rows that earn a byte of work at level 19: zstd goes through a file
/// at 200 MB/s or so.
const EARNED: u64 = 64;
/// Work that small files may do in any case.
const ALLOWANCE: u64 = 24 << 20;

/// Chooses a level for each buffer of new text.
pub(crate) enum Levels {
    Always(i32),
    /// How many bytes of work at level 19 are left, in parts of a byte.
    InProportion(u64),
}

impl Levels {
    /// For a file of so many bytes.
    pub(crate) fn new(effort: Effort, file: u64) -> Self {
        match effort {
            Effort::Fast => Self::Always(3),
            Effort::Small if file <= SMALL_FILE => Self::InProportion(ALLOWANCE * EARNED),
            Effort::Small => Self::InProportion(0),
            Effort::Smallest => Self::Always(19),
        }
    }

    /// Rows of so many bytes were coded.
    pub(super) fn earn(&mut self, bytes: usize) {
        if let Self::InProportion(left) = self {
            *left += bytes as u64;
        }
    }

    /// The level for so many bytes, the dictionary included.
    pub(super) fn level(&mut self, bytes: usize) -> i32 {
        let left = match self {
            Self::Always(level) => return *level,
            Self::InProportion(left) => left,
        };
        for (level, speed) in LEVELS {
            let cost = bytes as u64 * EARNED / speed;
            if cost <= *left {
                *left -= cost;
                return level;
            }
        }
        *left = 0;
        3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_in_proportion_to_what_was_earned() {
        let mut levels = Levels::new(Effort::Small, 1 << 30);
        assert_eq!(levels.level(1_000), 3);
        levels.earn(100_000);
        assert_eq!(levels.level(10_000), 9);
        levels.earn(20_000);
        assert_eq!(levels.level(1_000), 19);
        assert_eq!(levels.level(1_000_000), 3);
        assert_eq!(levels.level(1), 3);
        let mut small = Levels::new(Effort::Small, 1_000);
        assert_eq!([small.level(20 << 20), small.level(20 << 20)], [19, 9]);
    }
}
