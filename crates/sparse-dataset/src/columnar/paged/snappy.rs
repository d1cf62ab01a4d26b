//! Snappy as Google's library writes it.
//!
//! The format leaves the choice of matches to the compressor, and libraries choose differently:
//! the bytes of a Parquet page come back only by the choices of the one that wrote it. The format is
//! described in `format_description.txt` of google/snappy.

use crate::wire::put_number;

/// What is compressed on its own.
const FRAGMENT: usize = 1 << 16;
/// Matches do not start in so many last bytes of a fragment.
const MARGIN: usize = 15;
const SMALLEST_TABLE: usize = 1 << 8;

/// How positions are remembered, which changed from version to version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Habit {
    /// Binary logarithm of the largest table: 14 up to version 1.1.10, 15 since 1.2.
    pub(super) bits: u32,
    /// Hashed by a checksum, where the library was built for CPUs that have one, or by a product.
    pub(super) checksum: bool,
}

/// CRC-32C of each byte at each place of a word.
static CHECKSUMS: [[u32; 256]; 4] = {
    let mut tables = [[0u32; 256]; 4];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut place = 4;
        while place > 0 {
            place -= 1;
            let mut bit = 0;
            while bit < 8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
                bit += 1;
            }
            tables[place][byte] = crc;
        }
        byte += 1;
    }
    tables
};

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..]
        .first_chunk()
        .map_or(0, |&four| u32::from_le_bytes(four))
}

impl Habit {
    /// The place in a table of `size` entries for the four bytes of `word`.
    fn place(self, word: u32, size: usize) -> usize {
        let mask = 2 * (size as u32 - 1);
        let hash = if self.checksum {
            let [a, b, c, d] = (word ^ mask).to_le_bytes().map(usize::from);
            CHECKSUMS[0][a] ^ CHECKSUMS[1][b] ^ CHECKSUMS[2][c] ^ CHECKSUMS[3][d]
        } else {
            word.wrapping_mul(0x1e35_a7bd) >> (31 - self.bits)
        };
        ((hash & mask) / 2) as usize
    }

    /// `input`, which is shorter than 4 GiB, compressed.
    pub(super) fn compress(self, input: &[u8], out: &mut Vec<u8>) {
        put_number(out, input.len() as u64);
        let mut table = vec![0u16; 1 << self.bits];
        for fragment in input.chunks(FRAGMENT) {
            let size = fragment
                .len()
                .next_power_of_two()
                .clamp(SMALLEST_TABLE, 1 << self.bits);
            table[..size].fill(0);
            self.fragment(fragment, &mut table[..size], out);
        }
    }

    fn fragment(self, input: &[u8], table: &mut [u16], out: &mut Vec<u8>) {
        let size = table.len();
        let mut emitted = 0;
        if let Some(limit) = input.len().checked_sub(MARGIN) {
            let mut exchange = |at: usize| {
                let entry = &mut table[self.place(word(input, at), size)];
                usize::from(std::mem::replace(entry, at as u16))
            };
            let mut at = 1;
            while let Some((found, mut before)) = search(input, at, limit, &mut exchange) {
                literal(&input[emitted..found], out);
                at = found;
                loop {
                    let length = 4 + alike(&input[before + 4..], &input[at + 4..]);
                    copy(at - before, length, out);
                    at += length;
                    emitted = at;
                    if at >= limit {
                        break;
                    }
                    exchange(at - 1);
                    before = exchange(at);
                    if word(input, before) != word(input, at) {
                        break;
                    }
                }
                if at >= limit {
                    break;
                }
                at += 1;
            }
        }
        if emitted < input.len() {
            literal(&input[emitted..], out);
        }
    }
}

/// The next place from `at` on whose four bytes were seen before, and where. The longer there is
/// none, the fewer places are looked at.
fn search(
    input: &[u8],
    mut at: usize,
    limit: usize,
    exchange: &mut impl FnMut(usize) -> usize,
) -> Option<(usize, usize)> {
    let mut skip = 32;
    if at + 16 <= limit {
        for at in at..at + 16 {
            let before = exchange(at);
            if word(input, before) == word(input, at) {
                return Some((at, before));
            }
        }
        at += 16;
        skip += 16;
    }
    loop {
        let step = skip >> 5;
        skip += step;
        if at + step > limit {
            return None;
        }
        let before = exchange(at);
        if word(input, before) == word(input, at) {
            return Some((at, before));
        }
        at += step;
    }
}

/// How many bytes two slices begin with alike.
fn alike(one: &[u8], other: &[u8]) -> usize {
    let eights = one.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0);
    let mut length = 0;
    for (&one, &other) in eights {
        let differ = u64::from_le_bytes(one) ^ u64::from_le_bytes(other);
        if differ != 0 {
            return length + (differ.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let rest = one[length..].iter().zip(&other[length..]);
    length + rest.take_while(|(one, other)| one == other).count()
}

fn literal(bytes: &[u8], out: &mut Vec<u8>) {
    let last = (bytes.len() - 1) as u32;
    if last < 60 {
        out.push((last << 2) as u8);
    } else {
        let count = (last.ilog2() / 8 + 1) as usize;
        out.push((59 + count as u8) << 2);
        out.extend_from_slice(&last.to_le_bytes()[..count]);
    }
    out.extend_from_slice(bytes);
}

fn copy(offset: usize, mut length: usize, out: &mut Vec<u8>) {
    while length >= 68 {
        short_copy(offset, 64, out);
        length -= 64;
    }
    if length > 64 {
        short_copy(offset, 60, out);
        length -= 60;
    }
    short_copy(offset, length, out);
}

/// A copy of 4 to 64 bytes.
fn short_copy(offset: usize, length: usize, out: &mut Vec<u8>) {
    if length < 12 && offset < 2048 {
        out.push((1 | (length - 4) << 2 | offset >> 8 << 5) as u8);
        out.push(offset as u8);
    } else {
        out.push((2 | (length - 1) << 2) as u8);
        out.extend_from_slice(&(offset as u16).to_le_bytes());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    const HABITS: [Habit; 4] = {
        const fn of(bits: u32, checksum: bool) -> Habit {
            Habit { bits, checksum }
        }
        [of(14, false), of(15, false), of(14, true), of(15, true)]
    };

    fn packed(habit: Habit, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        habit.compress(bytes, &mut out);
        let back = snap::raw::Decoder::new().decompress_vec(&out).unwrap();
        assert!(back == bytes);
        out
    }

    /// Against the bytes that pyarrow 12 and 17 (Snappy 1.1.9 and 1.1.10) and pyarrow 26 (1.2.2) make.
    #[test]
    fn bytes_are_those_of_the_library() {
        let text = include_bytes!("../../../tests/data/gsm8k_40.jsonl");
        let mut input = text.to_vec();
        for line in text.split_inclusive(|&byte| byte == b'\n').rev() {
            input.extend_from_slice(line);
        }
        for _ in 0..300 {
            input.extend(0..=255u8);
        }
        input.extend(text.iter().rev());
        let digest = |habit| {
            let digest = Sha256::digest(packed(habit, &input));
            digest
                .iter()
                .fold(String::new(), |all, byte| format!("{all}{byte:02x}"))
        };
        assert_eq!(
            digest(HABITS[0]),
            "cc594e13a22bcb08883fb8dff74fcfc2677fa28621a8f14cccb19eb9818e5a59"
        );
        assert_eq!(
            digest(HABITS[1]),
            "bb2e45820ca23ad26ff73ba8d5677a6c64ccc1a538108307ef83b440d6c96857"
        );
    }

    proptest! {
        #[test]
        fn whatever_it_is_comes_back(
            parts in proptest::collection::vec((any::<u8>(), 1usize..9000), 0..25),
            seed in any::<u32>(),
        ) {
            // Runs, copies of what came before, and noise.
            let (mut bytes, mut state) = (Vec::new(), seed);
            for (kind, length) in parts {
                match kind % 3 {
                    0 => bytes.extend(std::iter::repeat_n(kind, length)),
                    1 => {
                        let from = bytes.len().saturating_sub(usize::from(kind) * 97);
                        let to = (from + length).min(bytes.len());
                        bytes.extend_from_within(from..to);
                    }
                    _ => bytes.extend((0..length).map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24) as u8
                    })),
                }
            }
            for habit in HABITS {
                packed(habit, &bytes);
            }
        }
    }
}
