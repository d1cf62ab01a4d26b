//! From words and their base to the sections of a chunk.

use super::Ranks;
#[cfg(target_arch = "x86_64")]
use super::avx512;
use crate::Word;
use crate::bits::BitWriter;
use crate::bytes::{put_varint, zigzag};
use crate::chunk::pack::GROUP;
use crate::chunk::symbols::{Moves, put_wide};
use crate::context::UNCHANGED;
use crate::ranks::{CLASSES, NEAR, RANKS};
use crate::simd::{Level, vectorised};

/// For each context and near difference, and after these for any other, what is [`Written`].
pub(super) type Codes = [[u32; 2 * NEAR as usize + 1]; 256];

/// A code as it is written: its class, from bit 3 on how many bits follow it, from bit 8 on these, but
/// for the low ones of the difference, and whether it is an escape.
struct Written;

impl Written {
    const ESCAPE: u32 = 1 << 31;

    /// What follows the classes.
    fn bits(
        found: &[u32; GROUP],
        lows: &[u32; GROUP],
        values: &mut [u32; GROUP],
        counts: &mut [u32; GROUP],
    ) {
        for (i, &found) in found.iter().enumerate() {
            values[i] = (found & !Self::ESCAPE) >> 8 | lows[i];
            counts[i] = found >> 3 & 31;
        }
    }

    /// The classes in unary.
    fn classes(found: &[u32; GROUP], values: &mut [u32; GROUP], counts: &mut [u32; GROUP]) {
        for (i, &found) in found.iter().enumerate() {
            values[i] = 1 << (found & 7);
            counts[i] = (found & 7) + 1;
        }
    }
}

impl Ranks<'_> {
    /// What is written a group at a time where wider registers do not do it.
    fn written(&self) -> &Codes {
        self.written.get_or_init(|| {
            let mut all = Box::new([[0; 2 * NEAR as usize + 1]; 256]);
            for (context, row) in all.iter_mut().enumerate() {
                let (low_bits, code) = (
                    self.low_bits[context],
                    usize::from(self.codes.codes[context]),
                );
                let escape = self.codes.escapes[code / CLASSES];
                let places = &self.codes.places[code * (RANKS / CLASSES)..][..RANKS];
                for (written, &place) in row.iter_mut().zip(places.iter().chain([&escape])) {
                    let class = place >> 5;
                    let bits = low_bits + (self.codes.classes[code + usize::from(class)] >> 5);
                    *written = u32::from(class)
                        | u32::from(bits) << 3
                        | u32::from(place & 31) << low_bits << 8;
                    if place == escape {
                        *written |= Written::ESCAPE;
                    }
                }
            }
            all
        })
    }
}

/// Writes the sections of a chunk.
pub(in crate::chunk) struct RankCoder<'a> {
    pub(super) ranks: Ranks<'a>,
    level: Level,
    pub(super) classes: BitWriter,
    pub(super) low: BitWriter,
    escapes: Vec<u8>,
}

/// Buffers that are used again from chunk to chunk.
#[derive(Debug, Default)]
pub(in crate::chunk) struct RankBuffers {
    classes: BitWriter,
    low: BitWriter,
}

impl<'a> RankCoder<'a> {
    pub(in crate::chunk) fn new(ranks: Ranks<'a>, level: Level, buffers: RankBuffers) -> Self {
        assert!(level <= crate::simd::level() && ranks.layout.bits() == 16);
        Self {
            ranks,
            level,
            classes: buffers.classes,
            low: buffers.low,
            escapes: Vec::new(),
        }
    }

    /// Appends the next weights, given their contexts.
    pub(in crate::chunk) fn push<W: Word>(&mut self, contexts: &[u8], base: &[W], fine: &[W]) {
        let len = contexts.len();
        assert!(base.len() == len && fine.len() == len);
        #[allow(unused_mut)]
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if W::BITS == 16 && self.level == Level::Avx512 {
            // SAFETY: the CPU has the level, and the words have 16 bits.
            done = unsafe { avx512::encode(self, contexts, base, fine) };
        }
        let words = base[done..].chunks(GROUP).zip(fine[done..].chunks(GROUP));
        for (contexts, (base, fine)) in contexts[done..].chunks(GROUP).zip(words) {
            self.put(contexts, base, fine);
        }
    }

    /// Appends a group of weights.
    fn put<W: Word>(&mut self, contexts: &[u8], base: &[W], fine: &[W]) {
        let shift = self.ranks.layout.shift();
        let moves = Moves { shift, base, fine };
        let (mut symbols, mut lows) = ([0; GROUP], [0; GROUP]);
        split(
            moves,
            contexts,
            &self.ranks.low_bits,
            &mut symbols,
            &mut lows,
        );
        let codes = self.ranks.written();
        let mut found = [0; GROUP];
        for (found, (&context, &symbol)) in found.iter_mut().zip(contexts.iter().zip(&symbols)) {
            let place = symbol.wrapping_sub(FIRST_NEAR).min(2 * NEAR as u8);
            *found = codes[usize::from(context)][usize::from(place)];
        }
        for (i, (base, &fine)) in base.iter().zip(fine).enumerate() {
            if found[i] & Written::ESCAPE != 0 {
                lows[i] = 0;
                self.escape(base.steps_to(fine, shift));
            }
        }
        let (mut values, mut counts) = ([0; GROUP], [0; GROUP]);
        Written::bits(&found, &lows, &mut values, &mut counts);
        put_wide(&values, &counts, &mut self.low);
        Written::classes(&found, &mut values, &mut counts);
        counts[contexts.len()..].fill(0);
        values[contexts.len()..].fill(0);
        put_wide(&values, &counts, &mut self.classes);
    }

    pub(super) fn escape(&mut self, steps: i32) {
        put_varint(&mut self.escapes, u64::from(zigzag(steps)));
    }

    /// Appends all sections, of which `rows` is the first, and gives the buffers back.
    pub(in crate::chunk) fn write(mut self, rows: &[u8], out: &mut Vec<u8>) -> RankBuffers {
        let parts = [rows, self.classes.flush(), self.low.flush(), &self.escapes];
        for part in parts {
            put_varint(out, part.len() as u64);
        }
        for part in parts {
            out.extend_from_slice(part);
        }
        RankBuffers {
            classes: self.classes,
            low: self.low,
        }
    }
}

/// The symbol of the least near difference.
const FIRST_NEAR: u8 = UNCHANGED - NEAR as u8;

vectorised! {
    /// Symbols and low bits, of which each context has so many.
    fn split<W: Word>(moves: Moves<'_, W>, contexts: &[u8], low_bits: &[u8; 256], symbols: &mut [u8; GROUP], lows: &mut [u32; GROUP]) {
        let parts = symbols.iter_mut().zip(lows);
        let words = moves.base.iter().zip(moves.fine);
        for ((symbol, low), (&context, (base, &fine))) in parts.zip(contexts.iter().zip(words)) {
            let rest;
            (*symbol, rest) = base.split_to(fine, moves.shift, low_bits[usize::from(context)]);
            *low = rest.widen();
        }
    }
}
