//! Interleaved range asymmetric numeral systems with static tables, one table per symbol.
//!
//! Duda's rANS (arXiv:1311.2540) with 11-bit probabilities, 31-bit states and 16-bit
//! renormalisation. `lanes` states take turns: symbol `i` belongs to state `i % lanes`, and all
//! states share one stream of 16-bit words, so eight of them fit one AVX2
//! register and sixteen an AVX-512 one. The table of
//! each symbol is chosen by a context that the decoder knows beforehand.

mod decode;
#[cfg(target_arch = "x86_64")]
mod decode_avx2;
#[cfg(target_arch = "x86_64")]
mod decode_avx512;
mod encode;
#[cfg(target_arch = "x86_64")]
mod encode_avx2;
#[cfg(target_arch = "x86_64")]
mod encode_avx512;

pub(crate) use decode::{DecodeTables, Decoder};
pub(crate) use encode::{EncodeTables, encode};

/// Probabilities are multiples of `1 / PROB_SCALE`.
pub(crate) const PROB_BITS: u32 = 11;
pub(crate) const PROB_SCALE: u32 = 1 << PROB_BITS;
/// States live in `[LOW, LOW << 16)`.
const LOW: u32 = 1 << 15;

/// How many states take turns in one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lanes {
    /// For a few hundred bytes: four bytes of overhead.
    One,
    /// For a few kilobytes.
    Eight,
    /// The fast one.
    ThirtyTwo,
}

impl Lanes {
    pub(crate) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Eight => 8,
            Self::ThirtyTwo => 32,
        }
    }

    pub(crate) fn from_count(count: u8) -> Option<Self> {
        match count {
            1 => Some(Self::One),
            8 => Some(Self::Eight),
            32 => Some(Self::ThirtyTwo),
            _ => None,
        }
    }

    /// The number of states whose overhead (four bytes each) is small beside `bytes`.
    pub(crate) fn for_size(bytes: usize) -> Self {
        match bytes {
            0..2_000 => Self::One,
            2_000..5_000 => Self::Eight,
            _ => Self::ThirtyTwo,
        }
    }
}

/// Frequencies of 256 symbols that sum to [`PROB_SCALE`]; none is the whole scale.
pub(crate) type Frequencies = [u16; 256];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Level;
    use proptest::prelude::*;

    fn table(weights: &[u8]) -> Frequencies {
        let mut freqs = [0u16; 256];
        let mut left = PROB_SCALE as u16;
        for (i, &w) in weights.iter().enumerate().skip(1).take(200) {
            let f = (u16::from(w) * 8).min(left - 1);
            freqs[i] = f;
            left -= f;
            if left == 1 {
                break;
            }
        }
        // Symbol 0 takes the rest, and symbol 255 one slot, so that no frequency is the scale.
        if freqs[1..].iter().all(|&f| f == 0) {
            freqs[255] = 1;
            left -= 1;
        }
        freqs[0] = left;
        freqs
    }

    fn check(lanes: Lanes, tables: &[Frequencies], contexts: &[u8], symbols: &[u8]) {
        let mut out = Vec::new();
        encode(
            &EncodeTables::new(tables),
            contexts,
            symbols,
            lanes,
            &mut Vec::new(),
            &mut out,
        );
        let decode_tables = DecodeTables::new(tables);
        for level in [Level::Plain, Level::Avx2, Level::Avx512] {
            let mut decoder = Decoder::at_level(&decode_tables, &out, lanes, level).unwrap();
            let mut back = vec![0u8; symbols.len()];
            // In uneven pieces: the decoder goes on where it stopped.
            let cut = symbols.len() / 3 / 32 * 32;
            decoder.decode(&contexts[..cut], &mut back[..cut]).unwrap();
            decoder.decode(&contexts[cut..], &mut back[cut..]).unwrap();
            assert_eq!(back, symbols);
            decoder.finish().unwrap();
        }
    }

    proptest! {
        #[test]
        fn every_lane_count_and_all_decoders_agree(
            weights in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 2..200), 1..5),
            picks in proptest::collection::vec((any::<u8>(), any::<u16>()), 0..3000),
        ) {
            let tables: Vec<_> = weights.iter().map(|w| table(w)).collect();
            let contexts: Vec<u8> = picks.iter().map(|p| (p.0 as usize % tables.len()) as u8).collect();
            let symbols: Vec<u8> = picks.iter().zip(&contexts).map(|(p, &c)| {
                let mut slot = i32::from(p.1 % 4096);
                let mut symbol = 0u8;
                for (s, &f) in tables[c as usize].iter().enumerate() {
                    slot -= i32::from(f);
                    if slot < 0 { symbol = s as u8; break; }
                }
                symbol
            }).collect();
            for lanes in [Lanes::One, Lanes::Eight, Lanes::ThirtyTwo] {
                check(lanes, &tables, &contexts, &symbols);
            }
        }

        #[test]
        fn damaged_streams_give_an_error_or_symbols(
            bytes in proptest::collection::vec(any::<u8>(), 0..400), count in 0usize..2000,
        ) {
            let tables = DecodeTables::new(&[table(&[1, 2, 3, 200, 100])]);
            for lanes in [Lanes::One, Lanes::Eight, Lanes::ThirtyTwo] {
                for level in [Level::Plain, Level::Avx2, Level::Avx512] {
                    if let Ok(mut decoder) = Decoder::at_level(&tables, &bytes, lanes, level) {
                        let _ = decoder.decode(&vec![0; count], &mut vec![0; count]);
                    }
                }
            }
        }
    }

    fn all_encoders<const N: usize>(tables: &EncodeTables, contexts: &[u8], symbols: &[u8]) {
        let whole = symbols.len() / N * N;
        let run = |level: Level| {
            let mut states = [LOW; N];
            let mut words = vec![0u16; whole + encode::SLACK];
            let mut at = words.len();
            encode::encode_whole::<N>(
                level.min(crate::simd::level()),
                tables,
                &contexts[..whole],
                &symbols[..whole],
                &mut states,
                &mut words,
                &mut at,
            );
            (states, words[at..].to_vec())
        };
        let plain = run(Level::Plain);
        assert_eq!(run(Level::Avx2), plain);
        assert_eq!(run(Level::Avx512), plain);
    }

    #[test]
    fn the_wide_encoders_agree_with_the_plain_one() {
        let tables = [
            table(&[9; 60]),
            table(&[1, 200]),
            table(&[3, 1, 0, 1, 70, 0, 5]),
        ];
        let mut state = 1u32;
        let (contexts, symbols): (Vec<u8>, Vec<u8>) = (0..5000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let context = (state >> 24) as usize % tables.len();
                let used: Vec<usize> = (0..256).filter(|&s| tables[context][s] > 0).collect();
                (
                    context as u8,
                    used[(state >> 8) as usize % used.len()] as u8,
                )
            })
            .unzip();
        let tables = EncodeTables::new(&tables);
        all_encoders::<8>(&tables, &contexts, &symbols);
        all_encoders::<32>(&tables, &contexts, &symbols);
    }

    #[test]
    fn size_is_the_entropy() {
        let mut freqs = [0u16; 256];
        freqs[0] = PROB_SCALE as u16 - 96;
        freqs[1] = 96;
        let rare = 96.0 / f64::from(PROB_SCALE);
        let symbols: Vec<u8> = (0..409_600u32)
            .map(|i| u8::from(i.wrapping_mul(2_654_435_761) >> (32 - PROB_BITS) < 96))
            .collect();
        let ones = symbols.iter().filter(|&&s| s == 1).count() as f64;
        let n = symbols.len() as f64;
        let ideal = -(ones * rare.log2() + (n - ones) * (1.0 - rare).log2()) / 8.0;
        let mut out = Vec::new();
        encode(
            &EncodeTables::new(&[freqs]),
            &vec![0; symbols.len()],
            &symbols,
            Lanes::ThirtyTwo,
            &mut Vec::new(),
            &mut out,
        );
        assert!(
            (out.len() as f64) < ideal * 1.002 + 128.0,
            "{} bytes, ideal {ideal}",
            out.len()
        );
    }
}
