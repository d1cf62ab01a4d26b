//! From symbols and low bits to weights.

use crate::bits::BitReader;
use crate::context::{Contexts, ESCAPE, join};
use crate::rans::Decoder;
use crate::simd::Level;
use crate::{Layout, Word};

/// What decoding needs to know of the contexts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    layout: Layout,
    contexts: Contexts,
    pub(super) first_raw: u8,
}

impl Rule {
    pub(super) fn new(layout: Layout) -> Self {
        let contexts = Contexts::new(layout);
        Self {
            layout,
            contexts,
            first_raw: contexts.first_raw(),
        }
    }

    pub(super) fn shift(&self) -> u32 {
        self.layout.shift()
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn contexts(&self) -> Contexts {
        self.contexts
    }

    /// Decodes symbols and rebuilds weights in one loop, for the whole groups at the start of a
    /// block where `level`, which the CPU must have, has code for that; returns how many weights
    /// that was.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn decode<W: Word>(
        &self,
        level: Level,
        decoder: &mut Decoder<'_>,
        base: &[W],
        symbols: &mut [u8],
        contexts: &[u8],
        low: &mut BitReader<'_>,
        out: &mut [W],
        escapes: &mut Vec<u32>,
    ) -> usize {
        assert!(level <= crate::simd::level());
        match level {
            // SAFETY: the level was just compared with the CPU's.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe {
                super::fused::avx512(self, decoder, base, symbols, contexts, low, out, escapes)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe {
                super::fused::avx2(self, decoder, base, symbols, contexts, low, out, escapes)
            },
            _ => 0,
        }
    }

    /// Rebuilds a block from weight number `first` on; the places of escapes, whose weights are
    /// left unspecified, are added to `escapes`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn apply<W: Word>(
        &self,
        first: usize,
        base: &[W],
        symbols: &[u8],
        contexts: &[u8],
        low: &mut BitReader<'_>,
        out: &mut [W],
        escapes: &mut Vec<u32>,
    ) {
        let len = base.len();
        assert!(symbols.len() == len && contexts.len() == len && out.len() == len);
        let before = escapes.len();
        #[allow(unused_mut)]
        let mut done = first;
        #[cfg(target_arch = "x86_64")]
        if crate::simd::has_avx2() {
            let (base, out) = (&base[first..], &mut out[first..]);
            let (symbols, contexts) = (&symbols[first..], &contexts[first..]);
            // SAFETY: the features were just detected.
            done += unsafe {
                super::apply_avx2::apply(self, base, symbols, contexts, low, out, escapes)
            };
        }
        for at in &mut escapes[before..] {
            *at += first as u32;
        }
        let before = escapes.len();
        self.apply_plain(
            &base[done..],
            &symbols[done..],
            &contexts[done..],
            low,
            &mut out[done..],
            escapes,
        );
        for at in &mut escapes[before..] {
            *at += done as u32;
        }
    }

    /// As [`Rule::apply`], a weight at a time.
    pub(super) fn apply_plain<W: Word>(
        &self,
        base: &[W],
        symbols: &[u8],
        contexts: &[u8],
        low: &mut BitReader<'_>,
        out: &mut [W],
        escapes: &mut Vec<u32>,
    ) {
        for (i, ((out, &word), (&symbol, &context))) in out
            .iter_mut()
            .zip(base)
            .zip(symbols.iter().zip(contexts))
            .enumerate()
        {
            if symbol == ESCAPE {
                escapes.push(i as u32);
                continue;
            }
            let count = self.contexts.low_bits(context);
            let steps = join(symbol, low.take(count), count);
            *out = word.stepped(steps, self.layout.shift());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::BitWriter;
    use crate::context::{BLOCK, UNCHANGED};
    use crate::rans::{self, DecodeTables, EncodeTables, Lanes, PROB_SCALE};
    use proptest::prelude::*;

    fn check<W: Word + std::fmt::Debug>(layout: Layout, picks: &[(u32, u8, u8)], bytes: &[u8]) {
        let rule = Rule::new(layout);
        let top = Contexts::new(layout).count() as u8 - 1;
        let base: Vec<W> = picks
            .iter()
            .map(|p| W::narrow(p.0 >> layout.shift() << layout.shift()))
            .collect();
        let symbols: Vec<u8> = picks.iter().map(|p| p.1.min(241)).collect();
        let contexts: Vec<u8> = picks.iter().map(|p| p.2.min(top)).collect();
        let (mut fast, mut slow) = (
            vec![W::default(); base.len()],
            vec![W::default(); base.len()],
        );
        let (mut fast_escapes, mut slow_escapes) = (Vec::new(), Vec::new());
        let mut low = BitReader::new(bytes);
        rule.apply(
            0,
            &base,
            &symbols,
            &contexts,
            &mut low,
            &mut fast,
            &mut fast_escapes,
        );
        let mut twin = BitReader::new(bytes);
        rule.apply_plain(
            &base,
            &symbols,
            &contexts,
            &mut twin,
            &mut slow,
            &mut slow_escapes,
        );
        assert_eq!(fast_escapes, slow_escapes);
        for &at in &slow_escapes {
            (fast[at as usize], slow[at as usize]) = (W::default(), W::default());
        }
        assert_eq!(fast, slow);
        assert_eq!(low.take(32), twin.take(32));
    }

    proptest! {
        #[test]
        fn the_wide_code_agrees_with_the_plain_one(
            picks in proptest::collection::vec((any::<u32>(), any::<u8>(), any::<u8>()), 0..300),
            bytes in proptest::collection::vec(any::<u8>(), 0..700),
        ) {
            check::<u16>(Layout::BF16, &picks, &bytes);
            check::<u16>(Layout::F16, &picks, &bytes);
            check::<u32>(Layout::F32, &picks, &bytes);
            check::<u8>(Layout::F8_E4M3, &picks, &bytes);
            if let Some(shifted) = Layout::F32.with_shift(16) {
                check::<u32>(shifted, &picks, &bytes);
            }
        }
    }

    /// What fused decoding at `level`, and one weight at a time after it, makes of a stream.
    fn rebuild<W: Word>(
        layout: Layout,
        level: Level,
        tables: &DecodeTables,
        stream: &[u8],
        base: &[W],
        contexts: &[u8],
        low: &[u8],
    ) -> (usize, Vec<W>, Vec<u32>) {
        let rule = Rule::new(layout);
        let mut decoder = Decoder::at_level(tables, stream, Lanes::ThirtyTwo, level).unwrap();
        let mut low = BitReader::new(low);
        let (mut out, mut escapes) = (vec![W::default(); base.len()], Vec::new());
        let mut symbols = vec![0u8; base.len()];
        let done = rule.decode(
            level,
            &mut decoder,
            base,
            &mut symbols,
            contexts,
            &mut low,
            &mut out,
            &mut escapes,
        );
        decoder.decode_rest(done, contexts, &mut symbols).unwrap();
        let mut rest = Vec::new();
        rule.apply_plain(
            &base[done..],
            &symbols[done..],
            &contexts[done..],
            &mut low,
            &mut out[done..],
            &mut rest,
        );
        escapes.extend(rest.iter().map(|at| at + done as u32));
        decoder.finish().unwrap();
        (done, out, escapes)
    }

    #[test]
    fn decoding_while_applying_agrees_at_every_level() {
        decoding_agrees::<u16>(Layout::BF16);
        decoding_agrees::<u16>(Layout::F16);
        decoding_agrees::<u16>(Layout::F16.with_shift(3).unwrap());
        decoding_agrees::<u32>(Layout::F32);
        decoding_agrees::<u8>(Layout::F8_E4M3);
    }

    fn decoding_agrees<W: Word + std::fmt::Debug>(layout: Layout) {
        let mut state = 3u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let mut frequencies = [0u16; 256];
        frequencies[usize::from(ESCAPE)] = 40;
        frequencies[100..140].fill(25);
        frequencies[usize::from(UNCHANGED)] += PROB_SCALE as u16 - 40 - 40 * 25;
        let count = Contexts::new(layout).count();
        let tables = vec![frequencies; count];
        let len = BLOCK - 5;
        let contexts: Vec<u8> = (0..len).map(|_| (next() as usize % count) as u8).collect();
        let shift = layout.shift();
        let words = std::iter::repeat_with(|| next() ^ next() << 12);
        let words = words.map(|word| W::narrow(word >> shift << shift));
        let base: Vec<W> = words.take(len).collect();
        let symbols: Vec<u8> = (0..len)
            .map(|_| match next() % 50 {
                0 => ESCAPE,
                pick => 95 + pick as u8 % 40 + 5,
            })
            .collect();
        let low: Vec<u8> = (0..4 * len).map(|_| next() as u8).collect();
        let mut stream = Vec::new();
        rans::encode(
            &EncodeTables::new(&tables),
            &contexts,
            &symbols,
            Lanes::ThirtyTwo,
            &mut Vec::new(),
            &mut stream,
        );
        let tables = DecodeTables::new(&tables);
        let plain = rebuild(
            layout,
            Level::Plain,
            &tables,
            &stream,
            &base,
            &contexts,
            &low,
        );
        assert_eq!(plain.0, 0);
        for level in [Level::Avx2, Level::Avx512] {
            if level > crate::simd::level() {
                continue;
            }
            let fused = rebuild(layout, level, &tables, &stream, &base, &contexts, &low);
            assert!(fused.0 > BLOCK / 2, "{level:?} decodes little");
            assert_eq!(fused.2, plain.2, "{level:?}");
            for at in (0..len).filter(|&at| !plain.2.contains(&(at as u32))) {
                assert_eq!(fused.1[at], plain.1[at], "{level:?}, weight {at}");
            }
        }
    }

    #[test]
    fn low_bits_follow_the_symbol() {
        let mut low = BitWriter::default();
        low.put(3, 2);
        let bytes = low.finish();
        let context = (0..=255u8)
            .find(|&c| Contexts::new(Layout::F32).low_bits(c) == 2)
            .unwrap_or(0);
        let mut out = [0u32];
        let mut escapes = Vec::new();
        Rule::new(Layout::F32).apply(
            0,
            &[100],
            &[UNCHANGED + 1],
            &[context],
            &mut BitReader::new(&bytes),
            &mut out,
            &mut escapes,
        );
        assert_eq!(out, [100 + 4 + 3 - 2]);
    }
}
