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
    contexts: Contexts,
    model: Model<'a>,
    held: &'a [[u8; 256]; 256],
    reaches: &'a [u8; 256],
    first_raw: u8,
    low: BitWriter,
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

    /// The symbols of the next weights, given their contexts.
    pub(super) fn push<W: Word>(
        &mut self,
        contexts: &[u8],
        base: &[W],
        fine: &[W],
        symbols: &mut [u8],
    ) {
        let (rule, shift) = (self.contexts, self.model.layout.shift());
        let narrow = rule.most_low_bits() <= 7;
        let (mut rests, mut masks) = ([0u32; GROUP], [0u32; GROUP]);
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
                let (rests, masks) = (&mut rests[..len], &mut masks[..len]);
                split_wide(rule, here, moves, symbols, rests, masks);
            }
            let mut far = beyond(here, symbols, self.reaches);
            while far != 0 {
                let i = far.trailing_zeros() as usize;
                let symbol = &mut symbols[i];
                *symbol = self.held[usize::from(here[i])][usize::from(*symbol)];
                if *symbol == ESCAPE {
                    let steps = base[i].steps_to(fine[i], shift);
                    put_varint(&mut self.escapes, u64::from(zigzag(steps)));
                    (masks[i], mask_bytes[i]) = (0, 0);
                }
                far &= far - 1;
            }
            if raw && narrow {
                mask_bytes[len..].fill(0);
                put_narrow(&rest_bytes, &mask_bytes, &mut self.low);
            } else if raw {
                masks[len..].fill(0);
                put_wide(&rests, &masks, &mut self.low);
            }
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
struct Moves<'a, W> {
    shift: u32,
    base: &'a [W],
    fine: &'a [W],
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
    /// Symbols, low bits and a one for each of these.
    fn split_wide<W: Word>(contexts: Contexts, here: &[u8], moves: Moves<'_, W>, symbols: &mut [u8], rests: &mut [u32], masks: &mut [u32]) {
        let parts = symbols.iter_mut().zip(rests).zip(masks);
        let words = moves.base.iter().zip(moves.fine);
        for (((symbol, rest), mask), (&context, (base, &fine))) in parts.zip(here.iter().zip(words)) {
            let bits = contexts.low_bits(context);
            (*symbol, *rest) = split(base.steps_to(fine, moves.shift), bits);
            *mask = (1 << bits) - 1;
        }
    }
}

vectorised! {
    /// As [`split_wide`], for contexts with at most seven low bits.
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

/// Appends the bits of each of 64 words that its mask has, at most the lowest 28: of two at a time,
/// as each has to wait for the one before.
fn put_wide(rests: &[u32; GROUP], masks: &[u32; GROUP], low: &mut BitWriter) {
    let pairs = rests
        .as_chunks::<2>()
        .0
        .iter()
        .zip(masks.as_chunks::<2>().0);
    for ([rest, next], [mask, next_mask]) in pairs {
        let (bits, next_bits) = (u64::from(rest & mask), u64::from(next & next_mask));
        let count = mask.count_ones();
        low.put(bits | next_bits << count, count + next_mask.count_ones());
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
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn put_eights(rests: &[u8; GROUP], masks: &[u8; GROUP], low: &mut BitWriter) {
    let eights = rests
        .as_chunks::<8>()
        .0
        .iter()
        .zip(masks.as_chunks::<8>().0);
    for (rests, masks) in eights {
        let mask = u64::from_le_bytes(*masks);
        let bits = std::arch::x86_64::_pext_u64(u64::from_le_bytes(*rests), mask);
        low.put(bits, mask.count_ones());
    }
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
    use proptest::prelude::*;

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
            let rests: [u32; GROUP] = std::array::from_fn(|i| pairs[i].0);
            let masks: [u32; GROUP] = std::array::from_fn(|i| (1u32 << pairs[i].1) - 1);
            let (mut fast, mut slow) = (BitWriter::default(), BitWriter::default());
            put_wide(&rests, &masks, &mut fast);
            for (&rest, &mask) in rests.iter().zip(&masks) {
                slow.put(u64::from(rest & mask), mask.count_ones());
            }
            prop_assert_eq!(fast.finish(), slow.finish());
        }
    }
}
