//! From words and their base to the sections of a chunk: symbols, low bits, escapes.

use super::masks::{at_least, beyond};
use super::pack::GROUP;
use super::{Model, Scratch};
use crate::Word;
use crate::bits::BitWriter;
use crate::bytes::{put_varint, zigzag};
use crate::context::{Contexts, ESCAPE, split};
use crate::rans::{self, Lanes};
use crate::simd::vectorised;
use crate::tables::BIT;

/// Turns changes into symbols, low bits and escapes.
pub(super) struct SymbolCoder<'a> {
    pub(super) contexts: Contexts,
    model: Model<'a>,
    held: &'a [[u8; 256]; 256],
    pub(super) reaches: &'a [u8; 256],
    first_raw: u8,
    pub(super) low: BitWriter,
    escapes: Vec<u8>,
}

impl<'a> SymbolCoder<'a> {
    pub(super) fn new(model: &Model<'a>) -> Self {
        let contexts = model.contexts();
        Self {
            contexts,
            model: *model,
            held: model.tables.held(),
            reaches: model.tables.reaches(),
            first_raw: contexts.first_raw(),
            low: BitWriter::default(),
            escapes: Vec::new(),
        }
    }

    pub(super) fn shift(&self) -> u32 {
        self.model.layout.shift()
    }

    /// The symbols of the next weights, given their contexts.
    pub(super) fn push<W: Word>(
        &mut self,
        contexts: &[u8],
        base: &[W],
        fine: &[W],
        symbols: &mut [u8],
    ) {
        let len = contexts.len();
        assert!(base.len() == len && fine.len() == len && symbols.len() == len);
        #[allow(unused_mut)]
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if W::BITS == 16 && crate::simd::level() == crate::simd::Level::Avx512 {
            // SAFETY: the features were just detected.
            done = unsafe { super::symbols_avx512::push(self, contexts, base, fine, symbols) };
        }
        let (base, fine) = (&base[done..], &fine[done..]);
        self.push_each(&contexts[done..], base, fine, &mut symbols[done..]);
    }

    /// As [`SymbolCoder::push`], in loops that the compiler may vectorise.
    fn push_each<W: Word>(&mut self, contexts: &[u8], base: &[W], fine: &[W], symbols: &mut [u8]) {
        let (rule, shift) = (self.contexts, self.shift());
        let narrow = rule.most_low_bits() <= 7;
        let (mut rests, mut counts) = ([0u32; GROUP], [0u32; GROUP]);
        let (mut rest_bytes, mut mask_bytes) = ([0u8; GROUP], [0u8; GROUP]);
        let groups = symbols.chunks_mut(GROUP).zip(contexts.chunks(GROUP));
        let words = base.chunks(GROUP).zip(fine.chunks(GROUP));
        for ((symbols, here), (base, fine)) in groups.zip(words) {
            let len = here.len();
            let raw = at_least(here, self.first_raw) != 0;
            let moves = Moves { shift, base, fine };
            if !raw {
                split_plain(moves, symbols);
            } else if narrow {
                let (rests, masks) = (&mut rest_bytes[..len], &mut mask_bytes[..len]);
                split_narrow(rule, here, moves, symbols, rests, masks);
            } else {
                let (rests, counts) = (&mut rests[..len], &mut counts[..len]);
                split_wide(rule, here, moves, symbols, rests, counts);
            }
            let far = beyond(here, symbols, self.reaches);
            self.settle(far, here, base, fine, symbols, |i| {
                (rests[i], counts[i], mask_bytes[i]) = (0, 0, 0);
            });
            if raw && narrow {
                mask_bytes[len..].fill(0);
                put_narrow(&rest_bytes, &mask_bytes, &mut self.low);
            } else if raw {
                rests[len..].fill(0);
                counts[len..].fill(0);
                put_wide(&rests, &counts, &mut self.low);
            }
        }
    }

    /// Puts down as escapes, of a group's symbols that are farther than their tables reach, those
    /// that the tables lack, and tells `without` of each, as it has no low bits.
    #[inline(always)]
    pub(super) fn settle<W: Word>(
        &mut self,
        mut far: u64,
        contexts: &[u8],
        base: &[W],
        fine: &[W],
        symbols: &mut [u8],
        mut without: impl FnMut(usize),
    ) {
        while far != 0 {
            let i = far.trailing_zeros() as usize;
            let symbol = &mut symbols[i];
            *symbol = self.held[usize::from(contexts[i])][usize::from(*symbol)];
            if *symbol == ESCAPE {
                let steps = base[i].steps_to(fine[i], self.shift());
                put_varint(&mut self.escapes, u64::from(zigzag(steps)));
                without(i);
            }
            far &= far - 1;
        }
    }

    /// What there is beside the symbols in the scratch.
    pub(super) fn finish(self, scratch: &Scratch) -> Coded {
        Coded {
            low: self.low.finish(),
            escapes: self.escapes,
            lanes: Lanes::for_size(about_bytes(&self.model, scratch)),
        }
    }
}

/// The parts of a chunk beside its symbols, which stay in the scratch.
pub(super) struct Coded {
    low: Vec<u8>,
    escapes: Vec<u8>,
    lanes: Lanes,
}

impl Coded {
    /// Appends all sections; `rows` is the first of them.
    pub(super) fn write(
        &self,
        model: &Model<'_>,
        scratch: &mut Scratch,
        rows: &[u8],
        out: &mut Vec<u8>,
    ) {
        let mut stream = std::mem::take(&mut scratch.stream);
        stream.clear();
        rans::encode(
            model.tables.encoder(),
            &scratch.contexts,
            &scratch.symbols,
            self.lanes,
            &mut scratch.words,
            &mut stream,
        );
        out.push(self.lanes.count() as u8);
        for part in [rows, &stream, &self.low, &self.escapes] {
            put_varint(out, part.len() as u64);
        }
        for part in [rows, &stream, &self.low, &self.escapes] {
            out.extend_from_slice(part);
        }
        scratch.stream = stream;
    }
}

/// Words before and after, with so many low bits that are zero in all of them.
#[derive(Clone, Copy)]
pub(super) struct Moves<'a, W> {
    pub(super) shift: u32,
    pub(super) base: &'a [W],
    pub(super) fine: &'a [W],
}

vectorised! {
    /// Symbols of weights without low bits.
    fn split_plain<W: Word>(moves: Moves<'_, W>, symbols: &mut [u8]) {
        let words = moves.base.iter().zip(moves.fine);
        for (symbol, (base, &fine)) in symbols.iter_mut().zip(words) {
            *symbol = base.split_to(fine, moves.shift, 0).0;
        }
    }
}

vectorised! {
    /// Symbols, low bits and how many of these there are.
    fn split_wide<W: Word>(contexts: Contexts, here: &[u8], moves: Moves<'_, W>, symbols: &mut [u8], rests: &mut [u32], counts: &mut [u32]) {
        let parts = symbols.iter_mut().zip(rests).zip(counts);
        let words = moves.base.iter().zip(moves.fine);
        for (((symbol, rest), count), (&context, (base, &fine))) in parts.zip(here.iter().zip(words)) {
            *count = contexts.low_bits(context);
            (*symbol, *rest) = split(base.steps_to(fine, moves.shift), *count);
        }
    }
}

vectorised! {
    /// As [`split_wide`], for contexts with at most seven low bits, and a one for each of these.
    fn split_narrow<W: Word>(contexts: Contexts, here: &[u8], moves: Moves<'_, W>, symbols: &mut [u8], rests: &mut [u8], masks: &mut [u8]) {
        let parts = symbols.iter_mut().zip(rests).zip(masks);
        let words = moves.base.iter().zip(moves.fine);
        for (((symbol, rest), mask), (&context, (base, &fine))) in parts.zip(here.iter().zip(words)) {
            let bits = contexts.low_bits_of(context);
            let low;
            (*symbol, low) = base.split_to(fine, moves.shift, bits);
            *rest = low.widen() as u8;
            *mask = (1u8 << bits) - 1;
        }
    }
}

/// Appends the bits of each of 64 bytes that its mask has: at most the lowest seven.
fn put_narrow(rests: &[u8; GROUP], masks: &[u8; GROUP], low: &mut BitWriter) {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::has_avx2() {
        // SAFETY: the features were just detected.
        return unsafe { put_eights(rests, masks, low) };
    }
    put_bytes(rests, masks, low);
}

/// Appends so many bits of each of 64 words, at most 28, which have no others: of two at a time, as
/// each has to wait for the one before.
pub(super) fn put_wide(rests: &[u32; GROUP], counts: &[u32; GROUP], low: &mut BitWriter) {
    let (mut pairs, mut sums) = ([0; GROUP / 2], [0; GROUP / 2]);
    pair_up(rests, counts, &mut pairs, &mut sums);
    let parts = pairs.iter().zip(&sums).map(|(&pair, &sum)| (pair, sum));
    low.put_all(parts, 4 * GROUP);
}

vectorised! {
    /// The bits of each two words as one, and how many these are.
    fn pair_up(rests: &[u32; GROUP], counts: &[u32; GROUP], pairs: &mut [u64; GROUP / 2], sums: &mut [u32; GROUP / 2]) {
        let words = rests.as_chunks::<2>().0.iter().zip(counts.as_chunks::<2>().0);
        for ((pair, sum), (rests, counts)) in pairs.iter_mut().zip(sums).zip(words) {
            *pair = u64::from(rests[0]) | u64::from(rests[1]) << counts[0];
            *sum = counts[0] + counts[1];
        }
    }
}

/// As [`put_narrow`], a byte at a time.
fn put_bytes(rests: &[u8; GROUP], masks: &[u8; GROUP], low: &mut BitWriter) {
    for (&rest, &mask) in rests.iter().zip(masks) {
        low.put(u64::from(rest & mask), mask.count_ones());
    }
}

/// As [`put_narrow`], eight bytes at a time.
///
/// # Safety
/// The CPU must have AVX2 and the bit instructions that come with it.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn put_eights(rests: &[u8; GROUP], masks: &[u8; GROUP], low: &mut BitWriter) {
    let mut parts = [(0, 0); GROUP / 8];
    let eights = rests
        .as_chunks::<8>()
        .0
        .iter()
        .zip(masks.as_chunks::<8>().0);
    for (part, (rests, masks)) in parts.iter_mut().zip(eights) {
        let mask = u64::from_le_bytes(*masks);
        let bits = std::arch::x86_64::_pext_u64(u64::from_le_bytes(*rests), mask);
        *part = (bits, mask.count_ones());
    }
    low.put_all(parts.into_iter(), GROUP);
}

/// About how long the symbols will be, from some thousand of them where there are more.
fn about_bytes(model: &Model<'_>, scratch: &Scratch) -> usize {
    let costs = model.tables.costs();
    let step = (scratch.symbols.len() >> 10).max(1);
    let sampled = scratch.symbols.iter().zip(&scratch.contexts).step_by(step);
    let cost: usize = sampled
        .map(|(&symbol, &context)| usize::from(costs[usize::from(context)][usize::from(symbol)]))
        .sum();
    cost * step / (8 * BIT as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fitter, Layout};
    use proptest::prelude::*;

    /// Symbols, low bits and escapes of changes of every size in contexts of every kind.
    fn coded(layout: Layout, wide: bool) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let shift = layout.shift();
        let len = 64 * 200 + 13;
        let (mut base, mut fine, mut contexts) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..len {
            let word = (next() as u16) >> shift << shift;
            let size = next() % 17;
            let moved = (next() as u16 & ((1u32 << size) - 1) as u16) << shift;
            base.push(word);
            fine.push(if next() % 2 == 0 {
                word.wrapping_add(moved)
            } else {
                word.wrapping_sub(moved)
            });
            contexts.push((next() as usize % Contexts::new(layout).count()) as u8);
        }
        // Tables that hold the small differences of a quarter of the words, and not all of these.
        let near: Vec<u16> = base
            .iter()
            .zip(&fine)
            .map(|(&b, &f)| if b.abs_diff(f) < 90 { f } else { b })
            .collect();
        let mut fitter = Fitter::new(layout);
        fitter.add(256, len as u64, [(0, &base[..len / 4], &near[..len / 4])]);
        let fit = fitter.fit();
        let model = Model::new(layout, &fit.tables, &fit.scales[0]);
        let mut coder = SymbolCoder::new(&model);
        let mut symbols = vec![0; len];
        if wide {
            coder.push(&contexts, &base, &fine, &mut symbols);
        } else {
            coder.push_each(&contexts, &base, &fine, &mut symbols);
        }
        (symbols, coder.low.finish(), coder.escapes)
    }

    #[test]
    fn symbols_are_alike_in_both_codes() {
        for layout in [
            Layout::BF16,
            Layout::F16,
            Layout::F16.with_shift(3).unwrap(),
        ] {
            let plain = coded(layout, false);
            assert!(!plain.1.is_empty() && !plain.2.is_empty(), "{layout:?}");
            assert!(coded(layout, true) == plain, "{layout:?}");
        }
    }

    proptest! {
        #[test]
        fn low_bits_are_packed_alike_by_both_codes(pairs in proptest::collection::vec((any::<u8>(), 0u32..8), GROUP)) {
            let rests: [u8; GROUP] = std::array::from_fn(|i| pairs[i].0);
            let masks: [u8; GROUP] = std::array::from_fn(|i| ((1u32 << pairs[i].1) - 1) as u8);
            let (mut fast, mut slow) = (BitWriter::default(), BitWriter::default());
            put_narrow(&rests, &masks, &mut fast);
            put_bytes(&rests, &masks, &mut slow);
            prop_assert_eq!(fast.finish(), slow.finish());
        }

        #[test]
        fn low_bits_are_packed_alike_in_pairs(pairs in proptest::collection::vec((any::<u32>(), 0u32..21), GROUP)) {
            let counts: [u32; GROUP] = std::array::from_fn(|i| pairs[i].1);
            let rests: [u32; GROUP] = std::array::from_fn(|i| pairs[i].0 & ((1 << counts[i]) - 1));
            let (mut fast, mut slow) = (BitWriter::default(), BitWriter::default());
            put_wide(&rests, &counts, &mut fast);
            for (&rest, &count) in rests.iter().zip(&counts) {
                slow.put(u64::from(rest), count);
            }
            prop_assert_eq!(fast.finish(), slow.finish());
        }
    }
}
