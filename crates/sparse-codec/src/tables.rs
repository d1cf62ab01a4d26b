//! Table sets: the static probabilities that chunks are coded with, and their bytes.

mod bytes;

use std::sync::OnceLock;

use crate::CodecError;
use crate::binary::{BinaryDecoder, BinaryEncoder};
use crate::bytes::{Reader, put_varint};
use crate::ranks::RankCodes;
use crate::rans::{DecodeTables, EncodeTables, Frequencies, PROB_SCALE};
use bytes::Models;

/// Cost unit: 1/32 bit.
pub(crate) const BIT: u32 = 32;

/// Probability tables for a run of contexts each.
///
/// Context `c` uses the last table whose first context is at most `c`. A set is shared by many
/// tensors: contexts already account for each tensor's scale.
#[derive(Debug)]
pub struct TableSet {
    /// The first context of each table, rising from 0.
    starts: Vec<u8>,
    tables: Vec<Frequencies>,
    encode: OnceLock<EncodeTables>,
    decode: OnceLock<DecodeTables>,
    costs: OnceLock<Vec<[u16; 256]>>,
    held: OnceLock<Box<[[u8; 256]; 256]>>,
    reaches: OnceLock<[u8; 256]>,
    ranks: OnceLock<Box<RankCodes>>,
}

impl PartialEq for TableSet {
    fn eq(&self, other: &Self) -> bool {
        self.starts == other.starts && self.tables == other.tables
    }
}

impl TableSet {
    pub(crate) fn from_frequencies(starts: Vec<u8>, tables: Vec<Frequencies>) -> Self {
        debug_assert_eq!(starts.len(), tables.len());
        Self {
            starts,
            tables,
            encode: OnceLock::new(),
            decode: OnceLock::new(),
            costs: OnceLock::new(),
            held: OnceLock::new(),
            reaches: OnceLock::new(),
            ranks: OnceLock::new(),
        }
    }

    /// The tables repeated so that contexts index them directly.
    fn expanded(&self) -> Vec<Frequencies> {
        let mut next = 0usize;
        (0..=255u8)
            .map(|context| {
                if next < self.starts.len() && self.starts[next] <= context {
                    next += 1;
                }
                self.tables[next - 1]
            })
            .take(usize::from(self.starts.last().map_or(0, |&s| s)).max(Self::CONTEXTS - 1) + 1)
            .collect()
    }

    /// The first table.
    pub(crate) fn first(&self) -> Frequencies {
        // There always is one.
        self.tables[0]
    }

    /// Contexts that any layout has at most.
    const CONTEXTS: usize = 170;

    pub(crate) fn encoder(&self) -> &EncodeTables {
        self.encode
            .get_or_init(|| EncodeTables::new(&self.expanded()))
    }

    pub(crate) fn decoder(&self) -> &DecodeTables {
        self.decode
            .get_or_init(|| DecodeTables::new(&self.expanded()))
    }

    /// Cost of each symbol in each context, in 1/32 bits; `u16::MAX` for one the table lacks.
    pub(crate) fn costs(&self) -> &[[u16; 256]] {
        self.costs.get_or_init(|| {
            self.expanded()
                .iter()
                .map(|freqs| {
                    freqs.map(|f| match f {
                        0 => u16::MAX,
                        f => (f64::from(BIT) * (f64::from(PROB_SCALE) / f64::from(f)).log2())
                            .round() as u16,
                    })
                })
                .collect()
        })
    }

    /// For each context, each symbol that the table holds, and [`ESCAPE`] for those it lacks.
    pub(crate) fn held(&self) -> &[[u8; 256]; 256] {
        self.held.get_or_init(|| {
            // A row for any context, so that no index needs a check.
            let mut held = Box::new([[ESCAPE as u8; 256]; 256]);
            for (row, freqs) in held.iter_mut().zip(self.expanded()) {
                *row = std::array::from_fn(|s| if freqs[s] > 0 { s as u8 } else { ESCAPE as u8 });
            }
            held
        })
    }

    /// For each context, how far from [`UNCHANGED`](crate::context::UNCHANGED) the table holds every
    /// symbol; beyond that [`TableSet::held`] has to be asked.
    pub(crate) fn reaches(&self) -> &[u8; 256] {
        self.reaches.get_or_init(|| {
            self.held().map(|row| {
                let holds = |symbol: usize| usize::from(row[symbol]) == symbol;
                let all = (1..=120).take_while(|&d| holds(REST + d) && holds(REST - d));
                all.last().unwrap_or(0) as u8
            })
        })
    }

    /// The tables as rank codes.
    pub(crate) fn ranks(&self) -> &RankCodes {
        self.ranks
            .get_or_init(|| Box::new(RankCodes::new(&self.starts, &self.tables)))
    }

    /// Cost of a symbol in bits; infinite for one the table lacks.
    pub(crate) fn bits(&self, context: usize, symbol: u8) -> f64 {
        let table = self.starts.partition_point(|&s| usize::from(s) <= context) - 1;
        let freq = f64::from(self.tables[table][usize::from(symbol)]);
        (f64::from(PROB_SCALE) / freq).log2()
    }

    /// Appends the set's bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut coder = BinaryEncoder::new();
        let mut models = Models::new();
        models
            .count
            .encode(&mut coder, self.tables.len() as u32 - 1);
        let mut last = 0u8;
        for &start in &self.starts[1..] {
            models.start.encode(&mut coder, u32::from(start - last) - 1);
            last = start;
        }
        for freqs in &self.tables {
            models.write_table(&mut coder, freqs);
        }
        let bytes = coder.finish();
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(&bytes);
    }

    /// Reads what [`TableSet::write`] wrote.
    ///
    /// # Errors
    /// [`CodecError`] for bytes that are no table set.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        let len = reader.length("table set length", reader.remaining())?;
        let mut coder = BinaryDecoder::new(reader.take(len)?);
        let mut models = Models::new();
        let count = models.count.decode(&mut coder);
        if count as usize >= Self::CONTEXTS {
            return Err(CodecError::Invalid {
                field: "table count",
                found: u64::from(count) + 1,
                expected: "1 to 170",
            });
        }
        let mut starts = vec![0u8];
        for _ in 0..count {
            let last = u32::from(*starts.last().unwrap_or(&0));
            let start = models.start.decode(&mut coder).saturating_add(last + 1);
            if start as usize >= Self::CONTEXTS {
                return Err(CodecError::Invalid {
                    field: "first context of a table",
                    found: u64::from(start),
                    expected: "below 170",
                });
            }
            starts.push(start as u8);
        }
        let tables = starts
            .iter()
            .map(|_| models.read_table(&mut coder))
            .collect::<Result<_, _>>()?;
        coder.finish("table set")?;
        Ok(Self::from_frequencies(starts, tables))
    }
}

/// The symbol whose frequency is what the others leave of the scale.
const REST: usize = crate::context::UNCHANGED as usize;
const ESCAPE: usize = crate::context::ESCAPE as usize;

/// Frequencies keep this many significant bits, so that the table itself is short.
const SIGNIFICANT: u32 = 5;

/// Rounds a frequency to [`SIGNIFICANT`] bits.
pub(crate) fn rounded(freq: u32) -> u32 {
    let excess = (32 - freq.leading_zeros()).saturating_sub(SIGNIFICANT);
    if excess == 0 {
        freq
    } else {
        (freq + (1 << (excess - 1))) >> excess << excess
    }
}

/// Frequencies for symbol counts: rounded, every counted symbol and the escape symbol at least
/// one slot. With `symmetric`, mirrored symbols share theirs.
pub(crate) fn frequencies(counts: &[u32; 256], symmetric: bool) -> Frequencies {
    let mut counts = counts.map(u64::from);
    if symmetric {
        for i in 1..=120usize {
            let mean = (counts[REST + i] + counts[REST - i]).div_ceil(2);
            counts[REST + i] = mean;
            counts[REST - i] = mean;
        }
    }
    let total = counts.iter().sum::<u64>().max(1);
    // Rounding and the minimum of one can push the sum over the scale: aim lower until it fits.
    let mut aim = u64::from(PROB_SCALE);
    loop {
        let mut freqs = counts.map(|count| match count {
            0 => 0,
            _ => rounded((((count * aim + total / 2) / total) as u32).max(1)) as u16,
        });
        freqs[ESCAPE] = freqs[ESCAPE].max(1);
        freqs[REST] = 0;
        let sum: u32 = freqs.iter().map(|&f| u32::from(f)).sum();
        let rest = u64::from(PROB_SCALE.saturating_sub(sum));
        // The middle symbol gets what is left; that must be near what it should have.
        if rest >= 1 && rest * 4 >= (counts[REST] * u64::from(PROB_SCALE) / total) * 3 {
            freqs[REST] = rest as u16;
            return freqs;
        }
        aim -= (aim / 64).max(1);
    }
}

#[cfg(test)]
mod tests;
