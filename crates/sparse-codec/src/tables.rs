//! Table sets: the static probabilities that chunks are coded with, and their bytes.

use std::sync::OnceLock;

use crate::CodecError;
use crate::binary::{BinaryDecoder, BinaryEncoder, Bit, Number};
use crate::bytes::{Reader, put_varint};
use crate::rans::{DecodeTables, EncodeTables, Frequencies, PROB_SCALE};

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

/// The coded symbols, from the middle out: 122, 120, 123, ... so that neighbours are alike.
fn order() -> impl Iterator<Item = usize> {
    (1..=134usize).flat_map(|i| {
        [
            Some(REST + i).filter(|&s| s < 256),
            REST.checked_sub(i).filter(|&s| s > 0),
        ]
        .into_iter()
        .flatten()
    })
}

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

/// The adaptive models of a set's bytes.
struct Models {
    count: Number,
    start: Number,
    symmetric: Bit,
    used: Number,
    /// Length in bits of a frequency, by that of its neighbour towards the middle.
    magnitude: Vec<Number>,
    digits: Vec<Bit>,
}

impl Models {
    fn new() -> Self {
        Self {
            count: Number::NEW,
            start: Number::NEW,
            symmetric: Bit::NEW,
            used: Number::NEW,
            magnitude: vec![Number::NEW; 14],
            digits: vec![Bit::NEW; 1 << SIGNIFICANT],
        }
    }

    /// Codes the escape symbol, then the others up to the last one in use; in a symmetric table
    /// each pair of mirrored symbols once.
    fn write_table(&mut self, coder: &mut BinaryEncoder, freqs: &Frequencies) {
        let symbols: Vec<usize> = order().collect();
        let used = symbols
            .iter()
            .rposition(|&s| freqs[s] > 0)
            .map_or(0, |p| p + 1);
        let used = used.next_multiple_of(2).min(symbols.len());
        let symmetric = used <= 240
            && symbols[..used]
                .chunks(2)
                .all(|pair| freqs[pair[0]] == freqs[pair[1]]);
        coder.bit(&mut self.symmetric, symmetric);
        self.used.encode(coder, used as u32 / 2);
        self.write_frequency(coder, u32::from(freqs[ESCAPE]), 0);
        let mut near = [0usize; 2];
        for (i, &symbol) in symbols[..used].iter().enumerate() {
            if symmetric && i % 2 == 1 {
                continue;
            }
            let freq = u32::from(freqs[symbol]);
            self.write_frequency(coder, freq, near[i % 2]);
            near[i % 2] = (32 - freq.leading_zeros()) as usize;
            if i == 0 {
                near[1] = near[0];
            }
        }
    }

    fn write_frequency(&mut self, coder: &mut BinaryEncoder, freq: u32, near: usize) {
        let length = 32 - freq.leading_zeros();
        self.magnitude[near].encode(coder, length);
        let kept = length.min(SIGNIFICANT).saturating_sub(1);
        let mut node = 1usize;
        for i in (length.saturating_sub(1 + kept)..length.saturating_sub(1)).rev() {
            let bit = freq >> i & 1 == 1;
            coder.bit(&mut self.digits[node], bit);
            node = node * 2 + usize::from(bit);
        }
    }

    fn read_table(&mut self, coder: &mut BinaryDecoder<'_>) -> Result<Frequencies, CodecError> {
        let symbols: Vec<usize> = order().collect();
        let symmetric = coder.bit(&mut self.symmetric);
        let pairs = self.used.decode(coder) as usize;
        if pairs > if symmetric { 120 } else { 128 } {
            return Err(CodecError::Invalid {
                field: "pairs of symbols in a table",
                found: pairs as u64,
                expected: "at most 120 in a symmetric table, 128 in another",
            });
        }
        let used = (2 * pairs).min(symbols.len());
        let mut freqs = [0u16; 256];
        freqs[ESCAPE] = self.read_frequency(coder, 0)? as u16;
        let mut total = u32::from(freqs[ESCAPE]);
        let mut near = [0usize; 2];
        for (i, &symbol) in symbols[..used].iter().enumerate() {
            let freq = if symmetric && i % 2 == 1 {
                u32::from(freqs[symbols[i - 1]])
            } else {
                let freq = self.read_frequency(coder, near[i % 2])?;
                near[i % 2] = (32 - freq.leading_zeros()) as usize;
                if i == 0 {
                    near[1] = near[0];
                }
                freq
            };
            freqs[symbol] = freq as u16;
            total += freq;
        }
        if freqs[ESCAPE] == 0 || total >= PROB_SCALE {
            return Err(CodecError::Invalid {
                field: "sum of a table's frequencies",
                found: u64::from(total),
                expected: "1 to 4095, the escape symbol among them",
            });
        }
        freqs[REST] = (PROB_SCALE - total) as u16;
        Ok(freqs)
    }

    fn read_frequency(
        &mut self,
        coder: &mut BinaryDecoder<'_>,
        near: usize,
    ) -> Result<u32, CodecError> {
        let length = self.magnitude[near].decode(coder);
        if length > 12 {
            return Err(CodecError::Invalid {
                field: "bits of a frequency",
                found: u64::from(length),
                expected: "0 to 12",
            });
        }
        if length == 0 {
            return Ok(0);
        }
        let kept = length.min(SIGNIFICANT) - 1;
        let mut freq = 1u32;
        for _ in 0..kept {
            let bit = coder.bit(&mut self.digits[freq as usize]);
            freq = freq * 2 + u32::from(bit);
        }
        Ok(freq << (length - 1 - kept))
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(set: &TableSet) -> usize {
        let mut bytes = Vec::new();
        set.write(&mut bytes);
        let mut reader = Reader::new(&bytes, "test");
        assert!(
            &TableSet::read(&mut reader).unwrap() == set,
            "tables changed"
        );
        reader.finish().unwrap();
        bytes.len()
    }

    proptest! {
        #[test]
        fn any_counts_make_tables_that_come_back(
            rows in proptest::collection::vec((proptest::collection::vec((any::<u8>(), 0u32..1_000_000), 0..256), any::<bool>()), 1..8),
        ) {
            let tables: Vec<_> = rows.iter().map(|(row, symmetric)| {
                let mut counts = [0u32; 256];
                for &(symbol, count) in row { counts[if *symmetric { symbol % 242 } else { symbol } as usize] = count; }
                frequencies(&counts, *symmetric)
            }).collect();
            for table in &tables {
                prop_assert_eq!(table.iter().map(|&f| u32::from(f)).sum::<u32>(), PROB_SCALE);
                prop_assert!(table.iter().all(|&f| u32::from(f) < PROB_SCALE));
            }
            let starts = (0..tables.len() as u8).map(|i| i * 7).collect();
            let _ = round_trip(&TableSet::from_frequencies(starts, tables));
        }

        #[test]
        fn damaged_sets_give_an_error_or_a_set(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(set) = TableSet::read(&mut Reader::new(&bytes, "test")) {
                for table in set.expanded() {
                    prop_assert_eq!(table.iter().map(|&f| u32::from(f)).sum::<u32>(), PROB_SCALE);
                    prop_assert!(table.iter().all(|&f| u32::from(f) < PROB_SCALE));
                }
            }
        }
    }

    #[test]
    fn symmetric_tables_cost_half() {
        let counts: [u32; 256] =
            std::array::from_fn(|i| (100_000 >> i.abs_diff(121).min(31)) / (1 + i as u32 % 3));
        let one = round_trip(&TableSet::from_frequencies(
            vec![0],
            vec![frequencies(&counts, true)],
        ));
        let two = round_trip(&TableSet::from_frequencies(
            vec![0],
            vec![frequencies(&counts, false)],
        ));
        assert!(one < two && one < 40, "{one} {two}");
    }
}
