//! The decoder: scalar for any number of lanes, and the choice of the AVX2 one.

use super::{Frequencies, LOW, Lanes, PROB_BITS, PROB_SCALE};
use crate::CodecError;

const SECTION: &str = "rANS stream";

/// One 32-bit entry per probability slot: frequency (12 bits), slot minus start (12), symbol (8).
#[derive(Debug)]
pub(crate) struct DecodeTables {
    entries: Vec<u32>,
}

impl DecodeTables {
    /// Each table's frequencies must sum to [`PROB_SCALE`] with none above `PROB_SCALE - 1`.
    pub(crate) fn new(tables: &[Frequencies]) -> Self {
        let mut entries = Vec::with_capacity(tables.len() << PROB_BITS);
        for freqs in tables {
            for (symbol, &freq) in freqs.iter().enumerate() {
                let freq = u32::from(freq);
                entries.extend((0..freq).map(|bias| freq | bias << 12 | (symbol as u32) << 24));
            }
            debug_assert_eq!(entries.len() % PROB_SCALE as usize, 0);
        }
        Self { entries }
    }

    pub(crate) fn entries(&self) -> &[u32] {
        &self.entries
    }

    fn count(&self) -> usize {
        self.entries.len() >> PROB_BITS
    }
}

/// A stream being decoded; it keeps its place between calls.
#[derive(Debug)]
pub(crate) struct Decoder<'a> {
    tables: &'a DecodeTables,
    pub(super) states: [u32; 32],
    pub(super) words: &'a [u8],
    lanes: usize,
    simd: bool,
}

impl<'a> Decoder<'a> {
    /// Reads the states at the start of `bytes`.
    pub(crate) fn new(
        tables: &'a DecodeTables,
        bytes: &'a [u8],
        lanes: Lanes,
    ) -> Result<Self, CodecError> {
        Self::with_simd(tables, bytes, lanes, true)
    }

    /// As [`Decoder::new`]; with `simd` false the scalar code runs everywhere.
    pub(crate) fn with_simd(
        tables: &'a DecodeTables,
        bytes: &'a [u8],
        lanes: Lanes,
        simd: bool,
    ) -> Result<Self, CodecError> {
        let lanes = lanes.count();
        if bytes.len() < 4 * lanes {
            return Err(CodecError::Truncated { section: SECTION });
        }
        let (head, words) = bytes.split_at(4 * lanes);
        let mut states = [LOW; 32];
        for (state, raw) in states.iter_mut().zip(head.as_chunks::<4>().0) {
            *state = u32::from_le_bytes(*raw);
            if !(LOW..LOW << 16).contains(state) {
                return Err(CodecError::Invalid {
                    field: "rANS state",
                    found: u64::from(*state),
                    expected: "2^15 to 2^31 - 1",
                });
            }
        }
        Ok(Self {
            tables,
            states,
            words,
            lanes,
            simd,
        })
    }

    /// Decodes the next `symbols.len()` symbols. All calls but the last must ask for a multiple
    /// of 32.
    pub(crate) fn decode(&mut self, contexts: &[u8], symbols: &mut [u8]) -> Result<(), CodecError> {
        assert_eq!(contexts.len(), symbols.len());
        let largest = contexts.iter().fold(0, |a, &b| a.max(b));
        assert!(
            usize::from(largest) < self.tables.count(),
            "context without a table"
        );
        #[allow(unused_mut)]
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if self.simd && self.lanes >= 8 && crate::simd::has_avx2() {
            // SAFETY: the features were just detected, and every context was just checked to be below
            // the number of tables.
            done = unsafe {
                let entries = self.tables.entries();
                if self.lanes == 32 {
                    super::decode_avx2::decode::<4>(
                        entries,
                        contexts,
                        symbols,
                        &mut self.states,
                        &mut self.words,
                    )
                } else {
                    super::decode_avx2::decode::<1>(
                        entries,
                        contexts,
                        symbols,
                        &mut self.states,
                        &mut self.words,
                    )
                }
            };
        }
        let entries = self.tables.entries();
        for i in done..symbols.len() {
            let state = &mut self.states[i % self.lanes];
            let slot = (*state & (PROB_SCALE - 1)) as usize;
            let entry = entries[(usize::from(contexts[i]) << PROB_BITS) + slot];
            let mut x = (entry & 0xfff) * (*state >> PROB_BITS) + (entry >> 12 & 0xfff);
            if x < LOW {
                let Some((word, rest)) = self.words.split_first_chunk::<2>() else {
                    return Err(CodecError::Truncated { section: SECTION });
                };
                x = x << 16 | u32::from(u16::from_le_bytes(*word));
                self.words = rest;
            }
            *state = x;
            symbols[i] = (entry >> 24) as u8;
        }
        Ok(())
    }

    /// Checks that the stream ends here: all words read, all states back where they began.
    pub(crate) fn finish(self) -> Result<(), CodecError> {
        if !self.words.is_empty() {
            return Err(CodecError::Trailing {
                section: SECTION,
                extra: self.words.len(),
            });
        }
        match self.states[..self.lanes].iter().find(|&&s| s != LOW) {
            None => Ok(()),
            Some(&state) => Err(CodecError::Invalid {
                field: "last rANS state",
                found: u64::from(state),
                expected: "2^15",
            }),
        }
    }
}
