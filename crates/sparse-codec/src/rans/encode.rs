//! The encoder: symbols last to first, states updated by multiplication with a reciprocal.

use super::{Frequencies, LOW, Lanes, PROB_BITS, PROB_SCALE};
use crate::simd::{Level, level};

/// One symbol of one table, ready for `x -> x / freq * PROB_SCALE + x % freq + start`: the
/// reciprocal `2^(31 + ceil(log2 freq)) / freq`, rounded up, and [`pack`]ed numbers.
pub(super) type EncodeSymbol = [u32; 2];

/// `PROB_SCALE - freq` (12 bits), what is added to the state (12 bits), the shift after the
/// multiplication (8 bits).
fn pack(complement: u32, bias: u32, shift: u32) -> u32 {
    complement | bias << 12 | shift << 24
}

/// Granlund and Montgomery's division by an invariant integer, exact for states below 2^31.
fn encode_symbol(start: u32, freq: u32) -> EncodeSymbol {
    let complement = PROB_SCALE - freq;
    if freq < 2 {
        // (x * (2^32 - 1)) >> 32 is x - 1: the missing PROB_SCALE - 1 goes into the bias.
        return [u32::MAX, pack(complement, start + PROB_SCALE - 1, 0)];
    }
    let shift = 32 - (freq - 1).leading_zeros();
    let reciprocal = (1u64 << (shift + 31)).div_ceil(u64::from(freq)) as u32;
    [reciprocal, pack(complement, start, shift - 1)]
}

/// The encoder's side of a set of tables.
#[derive(Debug)]
pub(crate) struct EncodeTables {
    /// A row of 256 for each of 256 contexts, so that no index needs a check; those without a
    /// table are zero.
    symbols: Vec<EncodeSymbol>,
}

impl EncodeTables {
    /// Up to 256 tables.
    pub(crate) fn new(tables: &[Frequencies]) -> Self {
        let mut symbols = vec![[0; 2]; 1 << 16];
        for (row, freqs) in symbols.chunks_mut(256).zip(tables) {
            let mut start = 0u32;
            for (symbol, &freq) in row.iter_mut().zip(freqs) {
                if freq > 0 {
                    *symbol = encode_symbol(start, u32::from(freq));
                }
                start += u32::from(freq);
            }
        }
        Self { symbols }
    }

    pub(super) fn symbols(&self) -> &[EncodeSymbol] {
        &self.symbols
    }
}

/// Appends the coded symbols to `out`, by way of `words`, whose contents do not matter: the states, then the words. Every symbol must have a
/// frequency above zero in the table of its context.
pub(crate) fn encode(
    tables: &EncodeTables,
    contexts: &[u8],
    symbols: &[u8],
    lanes: Lanes,
    words: &mut Vec<u16>,
    out: &mut Vec<u8>,
) {
    match lanes {
        Lanes::One => encode_lanes::<1>(tables, contexts, symbols, words, out),
        Lanes::Eight => encode_lanes::<8>(tables, contexts, symbols, words, out),
        Lanes::ThirtyTwo => encode_lanes::<32>(tables, contexts, symbols, words, out),
    }
}

/// Words before the first that the wide code may write over.
pub(super) const SLACK: usize = 16;

fn encode_lanes<const N: usize>(
    tables: &EncodeTables,
    contexts: &[u8],
    symbols: &[u8],
    words: &mut Vec<u16>,
    out: &mut Vec<u8>,
) {
    assert_eq!(contexts.len(), symbols.len());
    let mut states = [LOW; N];
    // Words come out last to first. A symbol gives at most one word.
    let most = symbols.len() + SLACK;
    if words.len() < most {
        words.resize(most, 0);
    }
    let words = &mut words[..most];
    let mut at = most;
    let whole = symbols.len() / N * N;
    encode_plain(
        tables,
        &contexts[whole..],
        &symbols[whole..],
        &mut states,
        words,
        &mut at,
    );
    let (contexts, symbols) = (&contexts[..whole], &symbols[..whole]);
    encode_whole(
        level(),
        tables,
        contexts,
        symbols,
        &mut states,
        words,
        &mut at,
    );
    out.reserve(4 * N + 2 * (words.len() - at));
    for state in states {
        out.extend_from_slice(&state.to_le_bytes());
    }
    let start = out.len();
    out.resize(start + 2 * (words.len() - at), 0);
    let places = out[start..].as_chunks_mut::<2>().0.iter_mut();
    for (place, word) in places.zip(&words[at..]) {
        *place = word.to_le_bytes();
    }
}

/// Encodes whole groups of `N` symbols with the code of `level`, which the CPU must have.
pub(super) fn encode_whole<const N: usize>(
    level: Level,
    tables: &EncodeTables,
    contexts: &[u8],
    symbols: &[u8],
    states: &mut [u32; N],
    words: &mut [u16],
    at: &mut usize,
) {
    assert!(level <= crate::simd::level() && *at <= words.len());
    assert!(*at >= symbols.len() + SLACK);
    #[cfg(target_arch = "x86_64")]
    {
        if let (Level::Avx512, Some(states)) = (level, states.first_chunk_mut::<32>()) {
            // SAFETY: the level was just compared with the CPU's; each symbol has a word and
            // `SLACK` are left over.
            unsafe {
                super::encode_avx512::encode(tables, contexts, symbols, states, words, at);
            }
            return;
        }
        if N.is_multiple_of(8) && level >= Level::Avx2 {
            // SAFETY: the level was just compared with the CPU's; each symbol has a word and
            // `SLACK` are left over.
            unsafe {
                super::encode_avx2::encode(tables, contexts, symbols, states, words, at);
            }
            return;
        }
    }
    encode_plain(tables, contexts, symbols, states, words, at);
}

/// One symbol at a time; lane 0 takes the first of `symbols`.
pub(super) fn encode_plain<const N: usize>(
    tables: &EncodeTables,
    contexts: &[u8],
    symbols: &[u8],
    states: &mut [u32; N],
    words: &mut [u16],
    at: &mut usize,
) {
    for (contexts, symbols) in contexts.chunks(N).zip(symbols.chunks(N)).rev() {
        let lanes = contexts.iter().zip(symbols).zip(states.iter_mut());
        for ((&context, &symbol), state) in lanes.rev() {
            let [reciprocal, packed] =
                tables.symbols[usize::from(context) << 8 | usize::from(symbol)];
            let complement = packed & 0xfff;
            let limit = (PROB_SCALE - complement) << (31 - PROB_BITS);
            // Written even when it is not kept: the next word overwrites it.
            words[*at - 1] = *state as u16;
            let full = u32::from(*state >= limit);
            *at -= full as usize;
            let x = *state >> (16 * full);
            let quotient = ((u64::from(x) * u64::from(reciprocal)) >> 32) as u32 >> (packed >> 24);
            *state = x
                .wrapping_add(packed >> 12 & 0xfff)
                .wrapping_add(quotient.wrapping_mul(complement));
        }
    }
}
