//! The encoder: symbols last to first, states updated by multiplication with a reciprocal.

use super::{Frequencies, LOW, Lanes, PROB_BITS, PROB_SCALE};

/// One symbol of one table, ready for `x -> x / freq * 4096 + x % freq + start`.
#[derive(Debug, Clone, Copy, Default)]
struct EncodeSymbol {
    /// States from here up first give 16 bits to the stream.
    limit: u32,
    /// `2^(31 + ceil(log2 freq)) / freq`, rounded up.
    reciprocal: u32,
    bias: u32,
    /// `4096 - freq`.
    complement: u16,
    shift: u16,
}

impl EncodeSymbol {
    /// Granlund and Montgomery's division by an invariant integer, exact for states below 2^31.
    fn new(start: u32, freq: u32) -> Self {
        let limit = (LOW >> PROB_BITS << 16) * freq;
        let complement = (PROB_SCALE - freq) as u16;
        if freq < 2 {
            // (x * (2^32 - 1)) >> 32 is x - 1: the missing 4095 goes into the bias.
            return Self {
                limit,
                reciprocal: u32::MAX,
                bias: start + PROB_SCALE - 1,
                complement,
                shift: 0,
            };
        }
        let shift = 32 - (freq - 1).leading_zeros();
        Self {
            limit,
            reciprocal: (1u64 << (shift + 31)).div_ceil(u64::from(freq)) as u32,
            bias: start,
            complement,
            shift: shift as u16 - 1,
        }
    }
}

/// The encoder's side of a set of tables.
#[derive(Debug)]
pub(crate) struct EncodeTables {
    symbols: Vec<[EncodeSymbol; 256]>,
}

impl EncodeTables {
    pub(crate) fn new(tables: &[Frequencies]) -> Self {
        let symbols = tables
            .iter()
            .map(|freqs| {
                let mut row = [EncodeSymbol::default(); 256];
                let mut start = 0u32;
                for (symbol, &freq) in row.iter_mut().zip(freqs) {
                    if freq > 0 {
                        *symbol = EncodeSymbol::new(start, u32::from(freq));
                    }
                    start += u32::from(freq);
                }
                row
            })
            .collect();
        Self { symbols }
    }
}

/// Appends the coded symbols to `out`: the states, then the words. Every symbol must have a
/// frequency above zero in the table of its context.
pub(crate) fn encode(
    tables: &EncodeTables,
    contexts: &[u8],
    symbols: &[u8],
    lanes: Lanes,
    out: &mut Vec<u8>,
) {
    match lanes {
        Lanes::One => encode_lanes::<1>(tables, contexts, symbols, out),
        Lanes::Eight => encode_lanes::<8>(tables, contexts, symbols, out),
        Lanes::ThirtyTwo => encode_lanes::<32>(tables, contexts, symbols, out),
    }
}

fn encode_lanes<const N: usize>(
    tables: &EncodeTables,
    contexts: &[u8],
    symbols: &[u8],
    out: &mut Vec<u8>,
) {
    assert_eq!(contexts.len(), symbols.len());
    let rows = tables.symbols.as_slice();
    let mut states = [LOW; N];
    // Words come out last to first. A symbol gives at most one word.
    let mut words = vec![0u16; symbols.len()];
    let mut at = words.len();
    let step = |state: &mut u32, context: u8, symbol: u8, words: &mut [u16], at: &mut usize| {
        let s = &rows[context as usize][symbol as usize];
        let full = usize::from(*state >= s.limit);
        *at -= full;
        // Written even when it is not kept: the next word overwrites it.
        words[at.saturating_sub(1 - full)] = *state as u16;
        let x = *state >> (16 * full as u32);
        let quotient = ((u64::from(x) * u64::from(s.reciprocal)) >> 32) as u32 >> s.shift;
        *state = x
            .wrapping_add(s.bias)
            .wrapping_add(quotient.wrapping_mul(u32::from(s.complement)));
    };
    let whole = symbols.len() / N * N;
    for i in (whole..symbols.len()).rev() {
        step(
            &mut states[i - whole],
            contexts[i],
            symbols[i],
            &mut words,
            &mut at,
        );
    }
    for (c, s) in contexts[..whole]
        .chunks_exact(N)
        .zip(symbols[..whole].chunks_exact(N))
        .rev()
    {
        for lane in (0..N).rev() {
            step(&mut states[lane], c[lane], s[lane], &mut words, &mut at);
        }
    }
    out.reserve(4 * N + 2 * (words.len() - at));
    for state in states {
        out.extend_from_slice(&state.to_le_bytes());
    }
    for word in &words[at..] {
        out.extend_from_slice(&word.to_le_bytes());
    }
}
