//! Decoding of DELTA and SPARSE chunks, a block at a time.

use super::apply::Rule;
use super::masks::at_least;
use super::pack::{self, GROUP};
use super::{Model, Scratch, gaps, rows};
use crate::bits::BitReader;
use crate::bytes::unzigzag;
use crate::context::BLOCK;
use crate::fit::REACH;
use crate::rans::{Decoder, Lanes};
use crate::{CodecError, Reader, Word};

/// The sections of a chunk.
struct Sections<'a> {
    lanes: Lanes,
    rows: &'a [u8],
    stream: &'a [u8],
    low: BitReader<'a>,
    escapes: Reader<'a>,
}

impl<'a> Sections<'a> {
    fn read(lanes: u8, reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        let lanes = Lanes::from_count(lanes).ok_or(CodecError::Invalid {
            field: "lanes",
            found: u64::from(lanes),
            expected: "1, 8 or 32",
        })?;
        let mut lengths = [0; 4];
        for length in &mut lengths {
            *length = reader.length("section length", reader.remaining())?;
        }
        Ok(Self {
            lanes,
            rows: reader.take(lengths[0])?,
            stream: reader.take(lengths[1])?,
            low: BitReader::new(reader.take(lengths[2])?),
            escapes: Reader::new(reader.take(lengths[3])?, "escapes"),
        })
    }

    fn rows<W: Word>(&self, model: &Model<'_>, base: &[W]) -> Result<Vec<i32>, CodecError> {
        rows::decode(
            self.rows,
            base.len().div_ceil(model.scales.segment()),
            REACH,
        )
    }

    /// Decodes the symbols of a block and rebuilds its weights.
    #[allow(clippy::too_many_arguments)]
    fn block<W: Word>(
        &mut self,
        rule: &Rule,
        decoder: &mut Decoder<'_>,
        base: &[W],
        symbols: &mut [u8],
        contexts: &[u8],
        out: &mut [W],
        places: &mut Vec<u32>,
    ) -> Result<(), CodecError> {
        places.clear();
        let low = &mut self.low;
        let level = crate::simd::level();
        let done = rule.decode(level, decoder, base, symbols, contexts, low, out, places);
        if done == 0 {
            decoder.decode(contexts, symbols)?;
        } else {
            decoder.decode_rest(done, contexts, symbols)?;
        }
        rule.apply(done, base, symbols, contexts, low, out, places);
        for &at in places.iter() {
            let steps = unzigzag(self.escapes.varint()? as u32);
            out[at as usize] = base[at as usize].stepped(steps, rule.shift());
        }
        Ok(())
    }

    fn finish(self) -> Result<(), CodecError> {
        self.low.finish("low bits")?;
        self.escapes.finish()
    }
}

pub(super) fn decode<W: Word>(
    model: &Model<'_>,
    start: usize,
    base: &[W],
    mut reader: Reader<'_>,
    scratch: &mut Scratch,
    out: &mut [W],
) -> Result<(), CodecError> {
    let lanes = reader.u8()?;
    let mut sections = Sections::read(lanes, &mut reader)?;
    reader.finish()?;
    let rows = sections.rows(model, base)?;
    let rule = Rule::new(model.layout);
    let mut decoder = Decoder::new(model.tables.decoder(), sections.stream, sections.lanes)?;
    model.scales.tile(BLOCK, &mut scratch.tile);
    let (mut symbols, mut contexts) = ([0u8; BLOCK], [0u8; BLOCK]);
    for (i, (base, out)) in base.chunks(BLOCK).zip(out.chunks_mut(BLOCK)).enumerate() {
        let (symbols, contexts) = (&mut symbols[..base.len()], &mut contexts[..base.len()]);
        model.fill_block(&scratch.tile, start, i * BLOCK, base, &rows, contexts);
        sections.block(
            &rule,
            &mut decoder,
            base,
            symbols,
            contexts,
            out,
            &mut scratch.places,
        )?;
    }
    decoder.finish()?;
    sections.finish()
}

pub(super) fn decode_sparse<W: Word>(
    model: &Model<'_>,
    start: usize,
    base: &[W],
    mut reader: Reader<'_>,
    scratch: &mut Scratch,
    out: &mut [W],
) -> Result<(), CodecError> {
    let skip = reader.u8()?;
    let lanes = reader.u8()?;
    if lanes == 0 {
        out.copy_from_slice(base);
    } else {
        let mut sections = Sections::read(lanes, &mut reader)?;
        let rows = sections.rows(model, base)?;
        let mut kept = std::mem::take(&mut W::buffers(&mut scratch.kept)[0]);
        if kept.len() < base.len() + GROUP {
            kept.resize(base.len() + GROUP, W::default());
        }
        let count = gather_expected(
            model,
            skip,
            start,
            (base, &mut *out),
            &rows,
            scratch,
            &mut kept,
        );
        let rule = Rule::new(model.layout);
        let mut decoder = Decoder::new(model.tables.decoder(), sections.stream, sections.lanes)?;
        let mut symbols = [0u8; BLOCK];
        let mut moved = [W::default(); BLOCK];
        for (contexts, kept) in scratch.contexts[..count]
            .chunks(BLOCK)
            .zip(kept[..count].chunks_mut(BLOCK))
        {
            let moved = &mut moved[..kept.len()];
            sections.block(
                &rule,
                &mut decoder,
                kept,
                &mut symbols[..kept.len()],
                contexts,
                moved,
                &mut scratch.places,
            )?;
            kept.copy_from_slice(moved);
        }
        decoder.finish()?;
        sections.finish()?;
        let (level, mut done) = (crate::simd::level(), 0);
        let groups = out.chunks_mut(GROUP).zip(&scratch.masks);
        for (out, &mask) in groups.filter(|&(_, &mask)| mask != 0) {
            done += pack::spread(level, &kept[done..], mask, out);
        }
        W::buffers(&mut scratch.kept)[0] = kept;
    }
    let count = reader.length("number of changes", base.len())?;
    let bytes = reader.take(reader.remaining())?;
    gaps::decode(bytes, count, base.len(), |at, steps| {
        out[at] = base[at].stepped(steps, model.layout.shift());
    })
}

/// Copies the base into `out`, and puts the contexts of at least `skip` side by side into `scratch`,
/// and their words into `kept`, with masks that say which these are; returns how many.
fn gather_expected<W: Word>(
    model: &Model<'_>,
    skip: u8,
    start: usize,
    (base, out): (&[W], &mut [W]),
    rows: &[i32],
    scratch: &mut Scratch,
    kept: &mut [W],
) -> usize {
    scratch.masks.clear();
    scratch.contexts.resize(base.len() + GROUP, 0);
    model.scales.tile(BLOCK, &mut scratch.tile);
    let mut contexts = [0u8; BLOCK];
    let (level, mut count) = (crate::simd::level(), 0);
    for (i, (base, out)) in base.chunks(BLOCK).zip(out.chunks_mut(BLOCK)).enumerate() {
        let contexts = &mut contexts[..base.len()];
        model.fill_block(&scratch.tile, start, i * BLOCK, base, rows, contexts);
        out.copy_from_slice(base);
        for (contexts, base) in contexts.chunks(GROUP).zip(base.chunks(GROUP)) {
            let mask = at_least(contexts, skip) & (u64::MAX >> (GROUP - base.len()));
            scratch.masks.push(mask);
            if mask == 0 {
                continue;
            }
            pack::bytes(level, contexts, mask, &mut scratch.contexts[count..]);
            count += pack::words(level, base, mask, &mut kept[count..]);
        }
    }
    count
}
