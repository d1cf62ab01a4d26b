//! The bytes of tables: each frequency given its neighbour's.

use super::{ESCAPE, REST, SIGNIFICANT};
use crate::CodecError;
use crate::binary::{BinaryDecoder, BinaryEncoder, Bit, Number};
use crate::rans::{Frequencies, PROB_SCALE};

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

/// The adaptive models of a set's bytes.
pub(super) struct Models {
    pub(super) count: Number,
    pub(super) start: Number,
    symmetric: Bit,
    used: Number,
    /// Length in bits of a frequency, by that of its neighbour towards the middle.
    magnitude: Vec<Number>,
    digits: Vec<Bit>,
}

impl Models {
    pub(super) fn new() -> Self {
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
    pub(super) fn write_table(&mut self, coder: &mut BinaryEncoder, freqs: &Frequencies) {
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

    pub(super) fn read_table(
        &mut self,
        coder: &mut BinaryDecoder<'_>,
    ) -> Result<Frequencies, CodecError> {
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
