//! The decoder: scalar for any number of lanes, and the choice of a wide one.

use super::{Frequencies, LOW, Lanes, PROB_BITS, PROB_SCALE};
use crate::CodecError;
use crate::simd::{Level, level};

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
    level: Level,
}

impl<'a> Decoder<'a> {
    /// Reads the states at the start of `bytes`.
    pub(crate) fn new(
        tables: &'a DecodeTables,
        bytes: &'a [u8],
        lanes: Lanes,
    ) -> Result<Self, CodecError> {
        Self::at_level(tables, bytes, lanes, level())
    }

    /// As [`Decoder::new`], with no code above `most`.
    pub(crate) fn at_level(
        tables: &'a DecodeTables,
        bytes: &'a [u8],
        lanes: Lanes,
        most: Level,
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
            level: most.min(level()),
        })
    }

    /// Decodes the next `symbols.len()` symbols. All calls but the last must ask for a multiple
    /// of 32.
    pub(crate) fn decode(&mut self, contexts: &[u8], symbols: &mut [u8]) -> Result<(), CodecError> {
        self.check(contexts, symbols);
        let done = self.decode_wide(contexts, symbols);
        self.decode_rest(done, contexts, symbols)
    }

    /// Starts a call as [`Decoder::decode`] does, for the caller to go on with
    /// [`Decoder::decode_rest`]: calls `each` with the place and the symbols of one group of 32 after
    /// the other, and returns how many symbols it decoded, which may be none.
    ///
    /// # Safety
    /// The CPU must have what [`Level::Avx512`] stands for.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(
        enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
    )]
    #[inline]
    pub(crate) unsafe fn groups_avx512(
        &mut self,
        contexts: &[u8],
        symbols: &mut [u8],
        each: impl FnMut(usize, std::arch::x86_64::__m256i),
    ) -> usize {
        self.check(contexts, symbols);
        if self.lanes != 32 {
            return 0;
        }
        let entries = self.tables.entries();
        let (states, words) = (&mut self.states, &mut self.words);
        // SAFETY: the caller vouches for the CPU, and the contexts were just checked.
        unsafe { super::decode_avx512::decode(entries, contexts, symbols, states, words, each) }
    }

    /// As [`Decoder::groups_avx512`].
    ///
    /// # Safety
    /// The CPU must have what [`Level::Avx2`] stands for.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    #[inline]
    pub(crate) unsafe fn groups_avx2(
        &mut self,
        contexts: &[u8],
        symbols: &mut [u8],
        each: impl FnMut(usize, std::arch::x86_64::__m256i),
    ) -> usize {
        self.check(contexts, symbols);
        if self.lanes != 32 {
            return 0;
        }
        let entries = self.tables.entries();
        let (states, words) = (&mut self.states, &mut self.words);
        // SAFETY: the caller vouches for the CPU, and the contexts were just checked.
        unsafe { super::decode_avx2::decode_32(entries, contexts, symbols, states, words, each) }
    }

    fn check(&self, contexts: &[u8], symbols: &[u8]) {
        assert_eq!(contexts.len(), symbols.len());
        let largest = contexts.iter().fold(0, |a, &b| a.max(b));
        assert!(
            usize::from(largest) < self.tables.count(),
            "context without a table"
        );
    }

    /// Decodes the symbols from `done` on, one at a time.
    pub(crate) fn decode_rest(
        &mut self,
        done: usize,
        contexts: &[u8],
        symbols: &mut [u8],
    ) -> Result<(), CodecError> {
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

    /// Decodes what whole registers can be filled with; returns how many symbols that was. Every
    /// context must have a table.
    #[cfg(target_arch = "x86_64")]
    fn decode_wide(&mut self, contexts: &[u8], symbols: &mut [u8]) -> usize {
        let entries = self.tables.entries();
        let (states, words) = (&mut self.states, &mut self.words);
        match (self.lanes, self.level) {
            // SAFETY: the level was detected, and the caller checked the contexts.
            (32, Level::Avx512) => unsafe {
                super::decode_avx512::decode(entries, contexts, symbols, states, words, |_, _| ())
            },
            // SAFETY: as above.
            (32, Level::Avx2) => unsafe {
                super::decode_avx2::decode_32(entries, contexts, symbols, states, words, |_, _| ())
            },
            // SAFETY: as above; the levels are ordered.
            (8, Level::Avx2 | Level::Avx512) => unsafe {
                super::decode_avx2::decode_8(entries, contexts, symbols, states, words)
            },
            _ => 0,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[allow(clippy::unused_self, clippy::needless_pass_by_ref_mut)]
    fn decode_wide(&mut self, _contexts: &[u8], _symbols: &mut [u8]) -> usize {
        0
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
