//! RANKED chunks: as DELTA, in rank codes instead of an entropy coder's.

#[cfg(target_arch = "x86_64")]
use super::ranked_avx512;
use super::{Model, Scratch, rows};
use crate::bits::{BitReader, BitWriter};
use crate::bytes::{put_varint, unzigzag, zigzag};
use crate::context::{BLOCK, Contexts};
use crate::fit::REACH;
use crate::ranks::{CLASSES, ESCAPED, NEAR, RANKS, RankCodes};
use crate::simd::Level;
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
}

impl<'a> Ranks<'a> {
    pub(super) fn new(model: &Model<'a>) -> Self {
        let (codes, contexts) = (model.tables.ranks(), Contexts::new(model.layout));
        Self {
            codes,
            layout: model.layout,
            low_bits: std::array::from_fn(|c| contexts.low_bits_of(c as u8) + codes.coarse[c]),
        }
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
        assert!(level <= crate::simd::level());
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
        for ((&context, &base), &fine) in contexts[done..].iter().zip(&base[done..]).zip(&fine[done..]) {
            self.put(context, base.steps_to(fine, self.ranks.layout.shift()));
        }
    }

    fn put(&mut self, context: u8, steps: i32) {
        let codes = self.ranks.codes;
        let code = usize::from(codes.codes[usize::from(context)]);
        let low_bits = u32::from(self.ranks.low_bits[usize::from(context)]);
        let half = (1i32 << low_bits) >> 1;
        let centred = steps.wrapping_add(half);
        let difference = centred >> low_bits;
        let near = (-NEAR..NEAR).contains(&difference) && centred >= steps;
        let escape = codes.escapes[code / CLASSES];
        let place = if near {
            codes.places[code * (RANKS / CLASSES) + (difference + NEAR) as usize]
        } else {
            escape
        };
        let mut low = centred as u32 & ((1 << low_bits) - 1);
        if place == escape {
            low = 0;
            self.escape(steps);
        }
        let class = place >> 5;
        self.classes.put(1 << class, u32::from(class) + 1);
        let class_bits = u32::from(codes.classes[code + usize::from(class)] >> 5);
        let value = u64::from(place & 31) << low_bits | u64::from(low);
        self.low.put(value, class_bits + low_bits);
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
        for i in done..len {
            let class = ends[i + 1].wrapping_sub(ends[i]).wrapping_sub(1);
            if usize::from(class) >= CLASSES {
                return Err(unknown_class(class));
            }
            let code = usize::from(self.codes.codes[usize::from(contexts[i])]);
            let low_bits = u32::from(self.low_bits[usize::from(contexts[i])]);
            let class = self.codes.classes[code + usize::from(class)];
            let raw = low.take(u32::from(class >> 5) + low_bits);
            let rank = (usize::from(class & 31) + (raw >> low_bits) as usize) % RANKS;
            let difference = self.codes.differences[code * (RANKS / CLASSES) + rank];
            if difference == ESCAPED {
                escapes.push(i as u32);
            }
            let low = (raw & ((1 << low_bits) - 1)) as i32;
            let steps = (i32::from(difference) << low_bits) + low - ((1 << low_bits) >> 1);
            out[i] = base[i].stepped(steps, self.layout.shift());
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
