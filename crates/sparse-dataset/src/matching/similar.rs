//! Matching rows that share no whole cell, by the pieces of text they share.

use std::collections::HashMap;

use super::NEW;
use crate::error::Result;
use crate::table::{Kind, Record, Rows};

/// At most so many rows are looked for.
const MAX_ROWS: usize = 200_000;
/// A piece is this many bytes, case ignored.
const PIECE: usize = 12;
/// A piece of this many base rows says nothing.
const COMMON: u32 = 12;
/// A row is looked for by at most so many pieces.
const PIECES_PER_ROW: usize = 48;

/// Calls `visit` with the hashes of a record's pieces: those that start a
/// word and whose hash is divisible by `one_in`.
fn pieces(record: &Record, one_in: u32, mut visit: impl FnMut(u32)) {
    for &cell in record.cells() {
        let bytes = record.bytes(cell);
        if cell.kind == Kind::Null || bytes.len() < PIECE {
            continue;
        }
        word_starts(&bytes[..=bytes.len() - PIECE], |start| {
            let hash = piece_hash(&bytes[start..]);
            if hash.is_multiple_of(one_in) {
                visit(hash);
            }
        });
    }
}

/// The hash of the [`PIECE`] bytes at the front, with every letter small.
fn piece_hash(bytes: &[u8]) -> u32 {
    const SMALL: u64 = 0x2020_2020_2020_2020;
    let Some((first, rest)) = bytes.split_first_chunk() else {
        return 0;
    };
    let Some((last, _)) = rest.split_first_chunk() else {
        return 0;
    };
    let (first, last) = (u64::from_le_bytes(*first), u32::from_le_bytes(*last));
    let product = u128::from((first | SMALL) ^ 0x9E37_79B9_7F4A_7C15)
        * u128::from((u64::from(last) | SMALL) ^ 0xD6E8_FEB8_6659_FD93);
    product as u32 ^ (product >> 64) as u32
}

/// Calls `visit` with the places at which a run of letters and digits starts; what is not ASCII
/// counts as a letter.
fn word_starts(bytes: &[u8], mut visit: impl FnMut(usize)) {
    let mut before = 0;
    for (number, bytes) in bytes.chunks(64).enumerate() {
        let mut letters = [0u8; 64];
        for (letter, &byte) in letters.iter_mut().zip(bytes) {
            let is_letter = (byte | 0x20).wrapping_sub(b'a') < 26;
            let is_digit = byte.wrapping_sub(b'0') < 10;
            *letter = u8::from(is_letter | is_digit | (byte >= 128));
        }
        // The lowest bit of each of eight bytes, moved together.
        let gather =
            |bytes: &[u8; 8]| u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        let eights = letters.as_chunks::<8>().0.iter().enumerate();
        let letters = eights.fold(0, |all, (at, eight)| all | gather(eight) << (8 * at));
        let mut starts = letters & !(letters << 1 | before);
        before = letters >> 63;
        while starts != 0 {
            visit(64 * number + starts.trailing_zeros() as usize);
            starts &= starts - 1;
        }
    }
}

/// Tells most hashes that are not among some from those that are, in a cache's room.
struct Filter {
    words: Vec<u64>,
    mask: u32,
}

impl Filter {
    /// Bits for each hash, and the most of all.
    const EACH: usize = 32;
    const MOST: usize = 1 << 22;

    fn of<'a>(hashes: impl ExactSizeIterator<Item = &'a u32>) -> Filter {
        let bits = (hashes.len() * Filter::EACH).clamp(64, Filter::MOST);
        let bits = bits.next_power_of_two();
        let mut filter = Filter {
            words: vec![0; bits / 64],
            mask: bits as u32 - 1,
        };
        for hash in hashes {
            let bit = hash & filter.mask;
            filter.words[bit as usize / 64] |= 1 << (bit % 64);
        }
        filter
    }

    fn may_have(&self, hash: u32) -> bool {
        let bit = hash & self.mask;
        self.words[bit as usize / 64] >> (bit % 64) & 1 == 1
    }
}

/// Gives each row of `references` that is [`NEW`] the base row most like it,
/// where one is clearly alike.
pub(crate) fn match_similar(
    base: &mut Rows,
    derivative: &mut Rows,
    references: &mut [u32],
) -> Result<()> {
    let missing: Vec<u32> = (0..references.len() as u32)
        .filter(|&row| references[row as usize] == NEW)
        .take(MAX_ROWS)
        .collect();
    if missing.is_empty() || base.len() == 0 {
        return Ok(());
    }
    // Few rows can afford all their pieces.
    let one_in = if missing.len() < 20_000 { 1 } else { 4 };
    let mut wanted: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut counts = vec![0u32; missing.len()];
    let mut record = Record::default();
    for (index, &row) in missing.iter().enumerate() {
        derivative.read(row, &mut record)?;
        pieces(&record, one_in, |hash| {
            if (counts[index] as usize) < PIECES_PER_ROW {
                let rows = wanted.entry(hash).or_default();
                if rows.last() != Some(&(index as u32)) && rows.len() < 16 {
                    rows.push(index as u32);
                    counts[index] += 1;
                }
            }
        });
    }
    if wanted.is_empty() {
        return Ok(());
    }
    // First how common each piece is in the base, with the rows of the rare ones.
    let filter = Filter::of(wanted.keys());
    let mut found: HashMap<u32, Vec<u32>> = HashMap::new();
    for row in 0..base.len() {
        base.read(row, &mut record)?;
        pieces(&record, one_in, |hash| {
            if filter.may_have(hash) && wanted.contains_key(&hash) {
                let rows = found.entry(hash).or_default();
                if rows.last() != Some(&row) && rows.len() <= COMMON as usize {
                    rows.push(row);
                }
            }
        });
    }
    let mut votes: HashMap<(u32, u32), u32> = HashMap::new();
    for (hash, rows) in &found {
        if rows.len() > COMMON as usize {
            continue;
        }
        for &index in &wanted[hash] {
            for &row in rows {
                *votes.entry((index, row)).or_default() += 1;
            }
        }
    }
    let mut best: Vec<(u32, u32)> = vec![(0, NEW); missing.len()];
    for (&(index, row), &count) in &votes {
        let entry = &mut best[index as usize];
        if count > entry.0 || count == entry.0 && row < entry.1 {
            *entry = (count, row);
        }
    }
    for (index, &(count, row)) in best.iter().enumerate() {
        if count >= 2 && count * 5 >= counts[index] {
            references[missing[index] as usize] = row;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_start_where_a_letter_follows_none() {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 128;
        let mut bytes: Vec<u8> = (0..=255).cycle().take(3 * 64).collect();
        bytes.extend("a bc  d,e\u{e9}f -- 0x1 ".repeat(40).bytes());
        for length in [0, 1, 63, 64, 65, bytes.len()] {
            let bytes = &bytes[..length];
            let mut found = Vec::new();
            word_starts(bytes, |start| found.push(start));
            let starts = |&at: &usize| letter(bytes[at]) && (at == 0 || !letter(bytes[at - 1]));
            let expected: Vec<usize> = (0..length).filter(starts).collect();
            assert_eq!(found, expected);
        }
        assert_eq!(piece_hash(b"A Few Words!x"), piece_hash(b"a few words!y"));
        assert_ne!(piece_hash(b"a few words!x"), piece_hash(b"a few words.x"));
    }
}
