//! The base rows that no earlier derivative row has used, with rank and select:
//! an index among them is what one more row of a shuffle has to cost.

/// The set of unused rows `0..size`, as a bitmap under a Fenwick tree of
/// 512-row blocks (4 bytes for 512 rows, so ten million rows take 1.3 MB).
#[derive(Clone)]
pub(crate) struct Remaining {
    size: u32,
    words: Vec<u64>,
    tree: Vec<u32>,
    left: u32,
}

const BLOCK_WORDS: usize = 8;

impl Remaining {
    pub(crate) fn new(size: u32) -> Self {
        let rows = size;
        let size = size as usize;
        let mut words = vec![u64::MAX; size.div_ceil(64)];
        if let Some(last) = words.last_mut()
            && !size.is_multiple_of(64)
        {
            *last = (1 << (size % 64)) - 1;
        }
        let blocks = words.len().div_ceil(BLOCK_WORDS);
        let mut tree = vec![0u32; blocks + 1];
        for (block, chunk) in words.chunks(BLOCK_WORDS).enumerate() {
            tree[block + 1] = chunk.iter().map(|word| word.count_ones()).sum();
        }
        for index in 1..=blocks {
            let parent = index + (index & index.wrapping_neg());
            if parent <= blocks {
                tree[parent] += tree[index];
            }
        }
        Self {
            size: rows,
            words,
            tree,
            left: rows,
        }
    }

    /// The number of rows, used or not.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    pub(crate) fn contains(&self, row: u32) -> bool {
        let row = row as usize;
        self.words
            .get(row / 64)
            .is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Removes a row; removing it again changes nothing.
    pub(crate) fn remove(&mut self, row: u32) {
        if !self.contains(row) {
            return;
        }
        let row = row as usize;
        self.words[row / 64] &= !(1 << (row % 64));
        self.left -= 1;
        let mut index = row / (64 * BLOCK_WORDS) + 1;
        while index < self.tree.len() {
            self.tree[index] -= 1;
            index += index & index.wrapping_neg();
        }
    }

    /// How many remaining rows come before `row`.
    pub(crate) fn rank(&self, row: u32) -> u32 {
        let row = row as usize;
        let block = row / (64 * BLOCK_WORDS);
        let mut rank = 0;
        let mut index = block;
        while index > 0 {
            rank += self.tree[index];
            index &= index - 1;
        }
        let word = row / 64;
        for full in &self.words[block * BLOCK_WORDS..word] {
            rank += full.count_ones();
        }
        rank + (self.words[word] & ((1u64 << (row % 64)) - 1)).count_ones()
    }

    /// The row that has `rank` remaining rows before it, if there are so many.
    pub(crate) fn select(&self, mut rank: u32) -> Option<u32> {
        if rank >= self.left {
            return None;
        }
        let mut block = 0usize;
        let mut step = self.tree.len().next_power_of_two();
        while step > 0 {
            if let Some(&count) = self.tree.get(block + step)
                && count <= rank
            {
                block += step;
                rank -= count;
            }
            step /= 2;
        }
        for (index, &word) in self.words.iter().enumerate().skip(block * BLOCK_WORDS) {
            let count = word.count_ones();
            if rank < count {
                let mut word = word;
                for _ in 0..rank {
                    word &= word - 1;
                }
                return Some(index as u32 * 64 + word.trailing_zeros());
            }
            rank -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_and_select_agree_while_rows_leave() {
        let size = 5_000u32;
        let mut remaining = Remaining::new(size);
        let mut naive: Vec<u32> = (0..size).collect();
        let mut state = 1u32;
        while !naive.is_empty() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let rank = (state >> 8) % naive.len() as u32;
            let row = remaining.select(rank);
            assert_eq!(row, Some(naive[rank as usize]));
            let row = naive.remove(rank as usize);
            assert_eq!(remaining.rank(row), rank);
            remaining.remove(row);
        }
        assert_eq!(remaining.select(0), None);
    }
}
