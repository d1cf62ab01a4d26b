//! Matching rows that share no whole cell, by the pieces of text they share.

use std::collections::HashMap;

use super::NEW;
use crate::error::Result;
use crate::table::{Kind, Record, Rows, hash_bytes};

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
        let mut inside = false;
        for window in bytes.array_windows::<PIECE>() {
            let letter = window[0].is_ascii_alphanumeric() || window[0] >= 128;
            if letter && !inside {
                let hash = hash_bytes(&window.map(|byte| byte.to_ascii_lowercase())) as u32;
                if hash.is_multiple_of(one_in) {
                    visit(hash);
                }
            }
            inside = letter;
        }
    }
}

/// Tells most hashes that are not among some from those that are, in a cache's room.
struct Filter(Vec<u64>);

impl Filter {
    /// Bits, a power of two.
    const BITS: u32 = 1 << 22;

    fn of<'a>(hashes: impl Iterator<Item = &'a u32>) -> Filter {
        let mut words = vec![0; Filter::BITS as usize / 64];
        for hash in hashes {
            let bit = hash % Filter::BITS;
            words[bit as usize / 64] |= 1 << (bit % 64);
        }
        Filter(words)
    }

    fn may_have(&self, hash: u32) -> bool {
        let bit = hash % Filter::BITS;
        self.0[bit as usize / 64] >> (bit % 64) & 1 == 1
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
