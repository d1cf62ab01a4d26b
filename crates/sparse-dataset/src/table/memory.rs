//! How much of the files that are open together is held in memory.

use crate::format::Format;

/// Bytes that may yet be held.
pub(crate) struct Memory {
    left: u64,
}

impl Memory {
    /// For all files of a base, however many those are.
    pub(crate) const fn of_base() -> Self {
        Self { left: 384 << 20 }
    }

    /// For one file of a derivative. Text stands in its file and can be read there; rows of other
    /// formats would have to be written first.
    pub(crate) const fn of_split(format: Format) -> Self {
        let megabytes = if format.is_text() { 192 } else { 384 };
        Self {
            left: megabytes << 20,
        }
    }

    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Whether so many bytes may be held, which are then.
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}
