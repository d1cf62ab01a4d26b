//! From a chunk and the base to words.

use super::Ranks;
#[cfg(target_arch = "x86_64")]
use super::avx512;
use crate::bits::BitReader;
use crate::bytes::unzigzag;
use crate::chunk::pack::GROUP;
use crate::chunk::{Model, Scratch, rows};
use crate::context::BLOCK;
use crate::fit::REACH;
use crate::ranks::{CLASSES, ESCAPED, NEAR, RANKS};
use crate::simd::{Level, vectorised};
use crate::unary::UnaryReader;
use crate::{CodecError, Reader, Word};

pub(in crate::chunk) fn decode<W: Word>(
    model: &Model<'_>,
    start: usize,
    base: &[W],
    reader: Reader<'_>,
    scratch: &mut Scratch,
    out: &mut [W],
) -> Result<(), CodecError> {
    decode_at(
        crate::simd::level(),
        model,
        start,
        base,
        reader,
        scratch,
        out,
    )
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
        ranks.block(
            level,
            contexts,
            ends,
            base,
            &mut low,
            out,
            &mut scratch.places,
        )?;
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
                    0 => avx512::decode::<W, false>(self, contexts, ends, base, low, out, escapes)?,
                    _ => avx512::decode::<W, true>(self, contexts, ends, base, low, out, escapes)?,
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

/// Contexts that words of 16 bits have at most.
const CONTEXTS: usize = 128;
/// Of escapes, in place of steps; with any low bits it is less than [`LEAST`].
const ESCAPE_STEPS: i16 = i16::MIN;
/// Steps that a rank says are not less.
const LEAST: i16 = -(NEAR as i16 + 1) << 10;

/// What reading a few weights at a time looks up: what classes of contexts say, and what ranks do.
pub(super) struct Codes {
    /// For each context, [`CLASSES`] of them.
    classes: [Class; CONTEXTS * CLASSES],
    /// For each context, the steps of each rank without low bits: twice, as ranks wrap around.
    steps: [i16; 2 * CONTEXTS * RANKS],
}

/// A class of a context.
#[derive(Clone, Copy, Default)]
struct Class {
    /// How many bits follow it, at most 14.
    bits: u8,
    /// How many of these are low bits of the difference.
    low_bits: u8,
    /// A one for each bit that follows, and for each low one.
    mask: u16,
    low_mask: u16,
    /// The place of its first rank.
    first: u16,
}

impl Ranks<'_> {
    /// What reading a few weights at a time looks up.
    fn read(&self) -> &Codes {
        self.read.get_or_init(|| {
            let mut read = Box::new(Codes {
                classes: [Class::default(); CONTEXTS * CLASSES],
                steps: [ESCAPE_STEPS; 2 * CONTEXTS * RANKS],
            });
            let classes = read.classes.as_chunks_mut::<CLASSES>().0.iter_mut();
            let steps = read.steps.as_chunks_mut::<RANKS>().0.chunks_mut(2);
            for (context, (classes, steps)) in classes.zip(steps).enumerate() {
                let code = usize::from(self.codes.codes[context]);
                let low_bits = self.low_bits[context];
                for (class, read) in classes.iter_mut().enumerate() {
                    let class = self.codes.classes[code + class];
                    let bits = (class >> 5) + low_bits;
                    *read = Class {
                        bits,
                        low_bits,
                        mask: (1u16 << bits) - 1,
                        low_mask: (1u16 << low_bits) - 1,
                        first: (2 * RANKS * context) as u16 + u16::from(class & 31),
                    };
                }
                let ranks = &self.codes.differences[code * (RANKS / CLASSES)..][..RANKS];
                for (steps, &difference) in steps[0].iter_mut().zip(ranks) {
                    if difference != ESCAPED {
                        *steps = (i16::from(difference) << low_bits) - (1 << low_bits >> 1);
                    }
                }
                steps[1] = steps[0];
            }
            read
        })
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
        let mut steps = [0i16; PART];
        let (groups, rest) = places[..len].as_chunks::<FEW>();
        let (found, rest_steps) = steps[..len].as_chunks_mut::<FEW>();
        for (places, steps) in groups.iter().zip(found) {
            take_few(ranks.read(), places, low, steps);
        }
        take_few(ranks.read(), rest, low, rest_steps);
        for ((out, base), &steps) in out.iter_mut().zip(part.base).zip(&steps) {
            *out = base.stepped(i32::from(steps), ranks.layout.shift());
        }
        for (i, steps) in steps[..len].chunks(GROUP).enumerate() {
            if steps.iter().fold(0, |least, &s| s.min(least)) < LEAST {
                let places = (0..).zip(steps).filter(|&(_, &s)| s < LEAST);
                escapes.extend(places.map(|(at, _)| (GROUP * i) as u32 + at));
            }
        }
        Ok(())
    }
}

/// Reads a few weights' codes, given the places of their classes: how many steps they take.
#[inline(always)]
fn take_few(read: &Codes, places: &[u16], low: &mut BitReader<'_>, steps: &mut [i16]) {
    let (bytes, bit) = low.window();
    let mut at = bit;
    for (places, steps) in places.chunks(4).zip(steps.chunks_mut(4)) {
        // Four codes have at most 14 bits each.
        let word = bytes[at / 8 % 64..].first_chunk().unwrap_or(&[0; 8]);
        let mut word = u64::from_le_bytes(*word) >> (at % 8);
        for (&place, steps) in places.iter().zip(steps) {
            let class = &read.classes[usize::from(place) % read.classes.len()];
            let raw = word & u64::from(class.mask);
            word = word.wrapping_shr(u32::from(class.bits));
            at += usize::from(class.bits);
            let place = u64::from(class.first) + raw.wrapping_shr(u32::from(class.low_bits));
            let first = read.steps[place as usize % read.steps.len()];
            *steps = first.wrapping_add((raw as u16 & class.low_mask) as i16);
        }
    }
    low.skip(at - bit);
}

pub(super) fn unknown_class(class: u8) -> CodecError {
    CodecError::Invalid {
        field: "class",
        found: u64::from(class),
        expected: "0 to 7",
    }
}
