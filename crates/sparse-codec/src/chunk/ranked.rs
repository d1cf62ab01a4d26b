//! RANKED chunks: as DELTA, in rank codes instead of an entropy coder's.

use std::cell::OnceCell;

#[cfg(target_arch = "x86_64")]
use super::ranked_avx512;
use super::pack::GROUP;
use super::symbols::{Moves, put_wide};
use super::{Model, Scratch, rows};
use crate::bits::{BitReader, BitWriter};
use crate::bytes::{put_varint, unzigzag, zigzag};
use crate::context::{BLOCK, Contexts, UNCHANGED};
use crate::fit::REACH;
use crate::ranks::{CLASSES, CODES, ESCAPED, NEAR, RANKS, RankCodes};
use crate::simd::{Level, vectorised};
use crate::unary::UnaryReader;
use crate::{CodecError, Layout, Reader, Word};

/// How many bits more than by the frequencies a chunk may take: one in so many.
const PRICE: u64 = 8;

/// The codes for one layout.
pub(super) struct Ranks<'a> {
    pub(super) codes: &'a RankCodes,
    pub(super) layout: Layout,
    /// For each context, how many low bits differences have.
    pub(super) low_bits: [u8; 256],
    written: OnceCell<Box<[[u32; 2 * NEAR as usize + 1]; 256]>>,
    read: OnceCell<Box<Read>>,
}

impl<'a> Ranks<'a> {
    pub(super) fn new(model: &Model<'a>) -> Self {
        let (codes, contexts) = (model.tables.ranks(), Contexts::new(model.layout));
        Self {
            codes,
            layout: model.layout,
            low_bits: std::array::from_fn(|c| contexts.low_bits_of(c as u8) + codes.coarse[c]),
            written: OnceCell::new(),
            read: OnceCell::new(),
        }
    }

    /// For each context and near difference, and after these for any other, what is [`Written`].
    fn written(&self) -> &[[u32; 2 * NEAR as usize + 1]; 256] {
        self.written.get_or_init(|| {
            let mut all = Box::new([[0; 2 * NEAR as usize + 1]; 256]);
            for (context, row) in all.iter_mut().enumerate() {
                let (low_bits, code) = (self.low_bits[context], usize::from(self.codes.codes[context]));
                let escape = self.codes.escapes[code / CLASSES];
                let places = &self.codes.places[code * (RANKS / CLASSES)..][..RANKS];
                for (written, &place) in row.iter_mut().zip(places.iter().chain([&escape])) {
                    let class = place >> 5;
                    let bits = low_bits + (self.codes.classes[code + usize::from(class)] >> 5);
                    *written = u32::from(class) | u32::from(bits) << 3 | u32::from(place & 31) << low_bits << 8;
                    if place == escape {
                        *written |= Written::ESCAPE;
                    }
                }
            }
            all
        })
    }

    /// Whether rank codes take little more than an entropy coder for weights of these contexts.
    pub(super) fn suit(&self, contexts: &[u8]) -> bool {
        let rules = Contexts::new(self.layout);
        let [mut entropy, mut bits] = [0u64; 2];
        for &context in contexts {
            let [least, coded] = self.codes.bits[usize::from(context)];
            let low = 256 * rules.low_bits(context);
            entropy += u64::from(least + low);
            bits += u64::from(coded + low);
        }
        (bits.saturating_sub(entropy)) * PRICE <= entropy
    }

    /// What reading a few weights at a time looks up.
    fn read(&self) -> &Read {
        self.read.get_or_init(|| {
            let mut read = Box::new(Read {
                classes: [Class::default(); 256 * CLASSES],
                differences: [ESCAPED; 2 * CODES * RANKS],
            });
            for (context, row) in read.classes.as_chunks_mut::<CLASSES>().0.iter_mut().enumerate() {
                let (low_bits, code) = (self.low_bits[context], usize::from(self.codes.codes[context]));
                for (class, read) in row.iter_mut().enumerate() {
                    let class = self.codes.classes[code + class];
                    let bits = (class >> 5) + low_bits;
                    *read = Class {
                        bits,
                        mask: (1u16 << bits) - 1,
                        low_bits,
                        half: 1 << low_bits >> 1,
                        first: 2 * (code * (RANKS / CLASSES)) as u16 + u16::from(class & 31),
                    };
                }
            }
            let ranks = self.codes.differences.chunks(RANKS);
            for (twice, ranks) in read.differences.chunks_mut(2 * RANKS).zip(ranks) {
                twice[..RANKS].copy_from_slice(ranks);
                twice[RANKS..].copy_from_slice(ranks);
            }
            read
        })
    }
}

/// What the classes of contexts say, and what ranks do.
struct Read {
    /// For each context, [`CLASSES`] of them.
    classes: [Class; 256 * CLASSES],
    /// Of each code twice, as ranks wrap around.
    differences: [i8; 2 * CODES * RANKS],
}

/// A class of a context.
#[derive(Clone, Copy, Default)]
struct Class {
    /// How many bits follow it, at most 14.
    bits: u8,
    /// How many of these are low bits of the difference.
    low_bits: u8,
    /// A one for each bit that follows.
    mask: u16,
    /// Half of what the low bits count to.
    half: u16,
    /// The place of its first rank.
    first: u16,
}

/// A code as it is written: its class, from bit 3 on how many bits follow it, from bit 8 on these, but
/// for the low ones of the difference, and whether it is an escape.
struct Written;

impl Written {
    const ESCAPE: u32 = 1 << 31;

    /// What follows the classes.
    fn bits(found: &[u32; GROUP], lows: &[u32; GROUP], values: &mut [u32; GROUP], counts: &mut [u32; GROUP]) {
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

/// Writes the sections of a chunk.
pub(super) struct RankCoder<'a> {
    pub(super) ranks: Ranks<'a>,
    level: Level,
    pub(super) classes: BitWriter,
    pub(super) low: BitWriter,
    escapes: Vec<u8>,
}

/// Buffers that are used again from chunk to chunk.
#[derive(Debug, Default)]
pub(super) struct RankBuffers {
    classes: BitWriter,
    low: BitWriter,
}

impl<'a> RankCoder<'a> {
    pub(super) fn new(ranks: Ranks<'a>, level: Level, buffers: RankBuffers) -> Self {
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
    pub(super) fn push<W: Word>(&mut self, contexts: &[u8], base: &[W], fine: &[W]) {
        let len = contexts.len();
        assert!(base.len() == len && fine.len() == len);
        #[allow(unused_mut)]
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if W::BITS == 16 && self.level == Level::Avx512 {
            // SAFETY: the CPU has the level, and the words have 16 bits.
            done = unsafe { ranked_avx512::encode(self, contexts, base, fine) };
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
        split(moves, contexts, &self.ranks.low_bits, &mut symbols, &mut lows);
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
    pub(super) fn write(mut self, rows: &[u8], out: &mut Vec<u8>) -> RankBuffers {
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

/// Weights to be rebuilt.
#[derive(Clone, Copy)]
struct Part<'a, W> {
    contexts: &'a [u8],
    /// Where the class of the weight before each ended, and the last one's.
    ends: &'a [u8],
    base: &'a [W],
}

/// Weights that are rebuilt at a time there: what is kept of them is not to drive the tables from the
/// first-level cache.
const PART: usize = 512;
/// Weights that are read at a time where they are not read by wider registers.
const FEW: usize = 16;

vectorised! {
    /// As [`Ranks::block`], a few weights at a time, of [`PART`] at most.
    fn rebuild<W: Word>(ranks: &Ranks<'_>, part: Part<'_, W>, low: &mut BitReader<'_>, out: &mut [W], escapes: &mut Vec<u32>) -> Result<(), CodecError> {
        let len = out.len();
        let mut places = [0u16; PART];
        let ends = part.ends[1..].iter().zip(part.ends);
        let mut most = 0;
        for (place, (&context, (&end, &before))) in places.iter_mut().zip(part.contexts.iter().zip(ends)) {
            let class = end.wrapping_sub(before).wrapping_sub(1);
            most = most.max(class);
            *place = u16::from(context) * CLASSES as u16 + u16::from(class) % CLASSES as u16;
        }
        if usize::from(most) >= CLASSES {
            return Err(unknown_class(most));
        }
        // Steps first, and then words: what was stored in small pieces takes a while to be there for
        // wide loads.
        let (mut steps, mut differences) = ([0i16; PART], [0i8; PART]);
        let (groups, rest) = places[..len].as_chunks::<FEW>();
        let (found, rest_steps) = steps[..len].as_chunks_mut::<FEW>();
        let (of, rest_differences) = differences[..len].as_chunks_mut::<FEW>();
        for (places, (steps, differences)) in groups.iter().zip(found.iter_mut().zip(of)) {
            take_few(ranks.read(), places, low, steps, differences);
        }
        take_few(ranks.read(), rest, low, rest_steps, rest_differences);
        for ((out, base), &steps) in out.iter_mut().zip(part.base).zip(&steps) {
            *out = base.stepped(i32::from(steps), ranks.layout.shift());
        }
        for (i, differences) in differences[..len].chunks(GROUP).enumerate() {
            if differences.contains(&ESCAPED) {
                let places = (0..).zip(differences).filter(|&(_, &d)| d == ESCAPED);
                escapes.extend(places.map(|(at, _)| (GROUP * i) as u32 + at));
            }
        }
        Ok(())
    }
}

/// Reads a few weights' codes, given the places of their classes: how many steps they take, and their
/// differences.
#[inline(always)]
fn take_few(
    read: &Read,
    places: &[u16],
    low: &mut BitReader<'_>,
    steps: &mut [i16],
    differences: &mut [i8],
) {
    let (bytes, bit) = low.window();
    let mut at = bit;
    let found = steps.chunks_mut(4).zip(differences.chunks_mut(4));
    for (places, (steps, differences)) in places.chunks(4).zip(found) {
        // Four codes have at most 14 bits each.
        let word = bytes[at / 8 % 64..].first_chunk().unwrap_or(&[0; 8]);
        let mut word = u64::from_le_bytes(*word) >> (at % 8);
        for (&place, (steps, found)) in places.iter().zip(steps.iter_mut().zip(differences)) {
            let class = &read.classes[usize::from(place) % read.classes.len()];
            let raw = word & u64::from(class.mask);
            word = word.wrapping_shr(u32::from(class.bits));
            at += usize::from(class.bits);
            let high = raw.wrapping_shr(u32::from(class.low_bits));
            let rank = u64::from(class.first) + high;
            let difference = read.differences[rank as usize % read.differences.len()];
            *found = difference;
            let whole = (i64::from(difference) as u64).wrapping_sub(high);
            let moved = whole.wrapping_shl(u32::from(class.low_bits)).wrapping_add(raw);
            *steps = moved.wrapping_sub(u64::from(class.half)) as i16;
        }
    }
    low.skip(at - bit);
}

pub(super) fn decode<W: Word>(
    model: &Model<'_>,
    start: usize,
    base: &[W],
    reader: Reader<'_>,
    scratch: &mut Scratch,
    out: &mut [W],
) -> Result<(), CodecError> {
    decode_at(crate::simd::level(), model, start, base, reader, scratch, out)
}

/// As [`decode`], at a level that the CPU has.
#[allow(clippy::too_many_arguments)]
pub(super) fn decode_at<W: Word>(
    level: Level,
    model: &Model<'_>,
    start: usize,
    base: &[W],
    mut reader: Reader<'_>,
    scratch: &mut Scratch,
    out: &mut [W],
) -> Result<(), CodecError> {
    if model.layout.bits() != 16 {
        return Err(CodecError::Invalid {
            field: "bits of a word in rank codes",
            found: u64::from(model.layout.bits()),
            expected: "16",
        });
    }
    let mut lengths = [0; 4];
    for length in &mut lengths {
        *length = reader.length("section length", reader.remaining())?;
    }
    let count = base.len().div_ceil(model.scales.segment());
    let rows = rows::decode(reader.take(lengths[0])?, count, REACH)?;
    let mut classes = UnaryReader::new(reader.take(lengths[1])?, level);
    let mut low = BitReader::new(reader.take(lengths[2])?);
    let mut escapes = Reader::new(reader.take(lengths[3])?, "escapes");
    reader.finish()?;
    let ranks = Ranks::new(model);
    model.scales.tile(BLOCK, &mut scratch.tile);
    let mut contexts = [0u8; BLOCK];
    for (i, (base, out)) in base.chunks(BLOCK).zip(out.chunks_mut(BLOCK)).enumerate() {
        let contexts = &mut contexts[..base.len()];
        model.fill_block(&scratch.tile, start, i * BLOCK, base, &rows, contexts);
        let ends = classes.ends(base.len())?;
        scratch.places.clear();
        ranks.block(level, contexts, ends, base, &mut low, out, &mut scratch.places)?;
        classes.pass(base.len());
        for &at in &scratch.places {
            let (base, out) = (base[at as usize], &mut out[at as usize]);
            *out = base.stepped(unzigzag(escapes.varint()? as u32), model.layout.shift());
        }
    }
    classes.finish()?;
    low.finish("low bits")?;
    escapes.finish()
}

impl Ranks<'_> {
    /// Rebuilds a block, but for escapes, whose places are added to `escapes`.
    #[allow(clippy::too_many_arguments)]
    fn block<W: Word>(
        &self,
        level: Level,
        contexts: &[u8],
        ends: &[u8],
        base: &[W],
        low: &mut BitReader<'_>,
        out: &mut [W],
        escapes: &mut Vec<u32>,
    ) -> Result<(), CodecError> {
        let len = contexts.len();
        assert!(ends.len() == len + 1 && base.len() == len && out.len() == len);
        #[allow(unused_mut)]
        let mut done = 0;
        #[cfg(target_arch = "x86_64")]
        if W::BITS == 16 && level == Level::Avx512 {
            // SAFETY: the CPU has the level, and the words have 16 bits.
            done = unsafe {
                match self.layout.shift() {
                    0 => ranked_avx512::decode::<W, false>(
                        self, contexts, ends, base, low, out, escapes,
                    )?,
                    _ => ranked_avx512::decode::<W, true>(
                        self, contexts, ends, base, low, out, escapes,
                    )?,
                }
            };
        }
        for start in (done..len).step_by(PART) {
            let (first, end) = (escapes.len(), (start + PART).min(len));
            let part = Part {
                contexts: &contexts[start..end],
                ends: &ends[start..=end],
                base: &base[start..end],
            };
            rebuild(self, part, low, &mut out[start..end], escapes)?;
            for at in &mut escapes[first..] {
                *at += start as u32;
            }
        }
        Ok(())
    }
}

pub(super) fn unknown_class(class: u8) -> CodecError {
    CodecError::Invalid {
        field: "class",
        found: u64::from(class),
        expected: "0 to 7",
    }
}
