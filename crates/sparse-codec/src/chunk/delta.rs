//! DELTA and SPARSE chunks: the steps from the base, given how many are expected.

use super::{Model, Scratch, TAG_DELTA, TAG_SPARSE, direct, gaps, is_plain, rows};
use crate::bits::{BitReader, BitWriter};
use crate::bytes::{put_varint, unzigzag, zigzag};
use crate::chunk::ChunkMode;
use crate::context::{ESCAPE, UNCHANGED, join, split};
use crate::fit::REACH;
use crate::rans::{self, Decoder, Lanes};
use crate::score::{CANDIDATES, Scorer, best, bucket};
use crate::simd::vectorised;
use crate::tables::BIT;
use crate::{CodecError, Layout, Reader, Word};

/// Symbols decoded at a time, so that they stay in the first-level cache.
const BLOCK: usize = 4096;

pub(super) fn encode<W: Word>(
    model: &Model<'_>,
    scorer: &Scorer,
    start: usize,
    base: &[W],
    fine: &[W],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> ChunkMode {
    let len = base.len();
    scratch.steps.resize(len, 0);
    scratch.buckets.resize(len, 0);
    scratch.contexts.resize(len, 0);
    let changed = measure(
        model.layout,
        base,
        fine,
        &mut scratch.steps,
        &mut scratch.buckets,
    );
    let rows = choose_rows(model, scorer, start, base, scratch);
    let skip = if changed * 2 < len {
        choose_skip(model, scratch)
    } else {
        0
    };
    let mut exceptions = Vec::new();
    if skip == 0 {
        out.push(TAG_DELTA);
    } else {
        out.extend_from_slice(&[TAG_SPARSE, skip]);
        exceptions = keep_expected(skip, scratch);
    }
    let coded = Coded::new(model, scratch);
    if scratch.contexts.is_empty() {
        out.push(0);
    } else {
        coded.write(model, scratch, &rows::encode(&rows), out);
    }
    if skip > 0 {
        put_varint(out, exceptions.len() as u64);
        out.extend_from_slice(&gaps::encode(&exceptions));
        return ChunkMode::Sparse;
    }
    ChunkMode::Delta
}

vectorised! {
    /// Steps and their classes; returns how many weights changed.
    fn measure<W: Word>(layout: Layout, base: &[W], fine: &[W], steps: &mut [i32], buckets: &mut [u8]) -> usize {
        let mut changed = 0usize;
        for ((step, &b), &f) in steps.iter_mut().zip(base).zip(fine) {
            *step = layout.steps(b.widen(), f.widen());
            changed += usize::from(*step != 0);
        }
        for (bucket_, &step) in buckets.iter_mut().zip(steps.iter()) {
            *bucket_ = bucket(step);
        }
        changed
    }
}

/// Finds each segment's scale; leaves the contexts in `scratch`.
fn choose_rows<W: Word>(
    model: &Model<'_>,
    scorer: &Scorer,
    start: usize,
    base: &[W],
    scratch: &mut Scratch,
) -> Vec<i32> {
    let contexts = model.contexts();
    let columns = model.scales.columns_from(start, base.len());
    let segment = model.scales.segment();
    let mut last = 0i32;
    let mut rows = Vec::with_capacity(base.len().div_ceil(segment));
    for at in (0..base.len()).step_by(segment) {
        let range = at..(at + segment).min(base.len());
        let words = &base[range.clone()];
        let columns = columns.get(range.clone()).unwrap_or(&[]);
        let out = &mut scratch.contexts[range.clone()];
        let buckets = &scratch.buckets[range];
        let mut row = last;
        // A scale at the edge of the candidates may lie beyond: look again from there.
        for _ in 0..4 {
            contexts.fill(words, i32::from(model.scales.base) + row, columns, out);
            let costs: [i32; CANDIDATES] = scorer.run(out, buckets);
            let offset = best(&costs, row - last);
            let moved = (row + offset).clamp(-REACH, REACH);
            if moved == row {
                break;
            }
            row = moved;
            contexts.fill(words, i32::from(model.scales.base) + row, columns, out);
            if (-7..7).contains(&offset) {
                break;
            }
        }
        rows.push(row);
        last = row;
    }
    rows
}

/// The context below which changes are so rare that gaps cost less than symbols; 0 for none.
fn choose_skip(model: &Model<'_>, scratch: &Scratch) -> u8 {
    let mut seen = vec![[0u32; 2]; model.contexts().count()];
    for (&context, &step) in scratch.contexts.iter().zip(&scratch.steps) {
        seen[usize::from(context)][usize::from(step != 0)] += 1;
    }
    let total = scratch.contexts.len() as f64;
    let (mut skipped, mut saved, mut weights) = (0f64, 0f64, 0f64);
    let mut choice = (0.0, 0);
    for (context, &[same, other]) in seen.iter().enumerate() {
        let escape = model.tables.bits(context, ESCAPE) + 12.0;
        let step = model.tables.bits(context, UNCHANGED + 1).min(escape);
        let stay = model.tables.bits(context, UNCHANGED).min(escape);
        saved += f64::from(same) * stay + f64::from(other) * (step + 0.5);
        skipped += f64::from(other);
        weights += f64::from(same + other);
        // A gap and its step; a symbol also costs time, valued at 1/2000 bit.
        let price = skipped * ((total / skipped.max(1.0)).log2() + 4.5);
        let gain = saved - price + weights / 2000.0;
        if weights > 0.0 && gain > choice.0 {
            choice = (gain, context as u8 + 1);
        }
    }
    choice.1
}

/// Keeps only the weights whose context is at least `skip`; returns the other changes.
fn keep_expected(skip: u8, scratch: &mut Scratch) -> Vec<(u32, i32)> {
    let mut exceptions = Vec::new();
    let mut kept = 0;
    for i in 0..scratch.contexts.len() {
        let (context, step) = (scratch.contexts[i], scratch.steps[i]);
        if context >= skip {
            scratch.contexts[kept] = context;
            scratch.steps[kept] = step;
            kept += 1;
        } else if step != 0 {
            exceptions.push((i as u32, step));
        }
    }
    scratch.contexts.truncate(kept);
    scratch.steps.truncate(kept);
    exceptions
}

/// The parts of a chunk beside its symbols.
struct Coded {
    low: Vec<u8>,
    escapes: Vec<u8>,
    /// In 1/32 bits.
    cost: u64,
}

impl Coded {
    /// Turns steps into symbols, low bits and escapes.
    fn new(model: &Model<'_>, scratch: &mut Scratch) -> Self {
        let contexts = model.contexts();
        let low_bits: Vec<u32> = (0..=255).map(|c| contexts.low_bits(c)).collect();
        let costs = model.tables.costs();
        let mut low = BitWriter::default();
        let mut escapes = Vec::new();
        let mut cost = 0u64;
        scratch.symbols.resize(scratch.contexts.len(), 0);
        for ((symbol, &context), &steps) in scratch
            .symbols
            .iter_mut()
            .zip(&scratch.contexts)
            .zip(&scratch.steps)
        {
            let count = low_bits[usize::from(context)];
            let (coded, rest) = split(steps, count);
            let price = costs[usize::from(context)][usize::from(coded)];
            if coded == ESCAPE || price == u16::MAX {
                *symbol = ESCAPE;
                put_varint(&mut escapes, u64::from(zigzag(steps)));
                cost += u64::from(costs[usize::from(context)][usize::from(ESCAPE)]);
            } else {
                *symbol = coded;
                low.put(rest, count);
                cost += u64::from(price);
            }
        }
        Self {
            low: low.finish(),
            escapes,
            cost,
        }
    }

    fn write(&self, model: &Model<'_>, scratch: &Scratch, rows: &[u8], out: &mut Vec<u8>) {
        let lanes = Lanes::for_size((self.cost / u64::from(8 * BIT)) as usize);
        let mut stream = Vec::new();
        rans::encode(
            model.tables.encoder(),
            &scratch.contexts,
            &scratch.symbols,
            lanes,
            &mut stream,
        );
        out.push(lanes.count() as u8);
        for part in [rows, &stream, &self.low, &self.escapes] {
            put_varint(out, part.len() as u64);
        }
        for part in [rows, &stream, &self.low, &self.escapes] {
            out.extend_from_slice(part);
        }
    }
}

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

    /// The steps of a weight with low bits or an escape.
    #[inline(always)]
    fn steps(&mut self, symbol: u8, low_bits: u32) -> Result<i32, CodecError> {
        if symbol == ESCAPE {
            Ok(unzigzag(self.escapes.varint()? as u32))
        } else {
            Ok(join(symbol, self.low.take(low_bits), low_bits))
        }
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
    let rows = rows::decode(
        sections.rows,
        base.len().div_ceil(model.scales.segment()),
        REACH,
    )?;
    scratch.contexts.resize(base.len(), 0);
    model.fill_contexts(start, base, &rows, &mut scratch.contexts);
    let contexts = model.contexts();
    let first_raw = contexts.first_raw();
    let low_bits: Vec<u32> = (0..=255).map(|c| contexts.low_bits(c)).collect();
    let mut decoder = Decoder::new(model.tables.decoder(), sections.stream, sections.lanes)?;
    scratch.symbols.resize(BLOCK, 0);
    for ((base, out), contexts) in base
        .chunks(BLOCK)
        .zip(out.chunks_mut(BLOCK))
        .zip(scratch.contexts.chunks(BLOCK))
    {
        let symbols = &mut scratch.symbols[..base.len()];
        decoder.decode(contexts, symbols)?;
        apply_direct(model.layout, base, symbols, out);
        // Then those with low bits or an escape again.
        for at in (0..base.len()).step_by(64) {
            let end = (at + 64).min(base.len());
            let mut mask = others_mask(&symbols[at..end], &contexts[at..end], first_raw);
            while mask != 0 {
                let i = at + mask.trailing_zeros() as usize;
                let steps = sections.steps(symbols[i], low_bits[usize::from(contexts[i])])?;
                out[i] = W::narrow(model.layout.step_from(base[i].widen(), steps));
                mask &= mask - 1;
            }
        }
    }
    decoder.finish()?;
    sections.finish()
}

vectorised! {
    /// Applies every symbol as if it had no low bits.
    fn apply_direct<W: Word>(layout: Layout, base: &[W], symbols: &[u8], out: &mut [W]) {
        for ((out, &word), &symbol) in out.iter_mut().zip(base).zip(symbols) {
            *out = W::narrow(layout.step_from(word.widen(), direct(symbol)));
        }
    }
}

vectorised! {
    /// Which of up to 64 symbols have low bits or are escapes.
    fn others_mask(symbols: &[u8], contexts: &[u8], first_raw: u8) -> u64 {
        symbols
            .iter()
            .zip(contexts)
            .enumerate()
            .fold(0, |mask, (i, (&s, &c))| mask | u64::from(!is_plain(s, c, first_raw)) << i)
    }
}

pub(super) fn decode_sparse<W: Word>(
    model: &Model<'_>,
    start: usize,
    base: &[W],
    mut reader: Reader<'_>,
    scratch: &mut Scratch,
    out: &mut [W],
) -> Result<(), CodecError> {
    out.copy_from_slice(base);
    let skip = reader.u8()?;
    let lanes = reader.u8()?;
    if lanes > 0 {
        let mut sections = Sections::read(lanes, &mut reader)?;
        let rows = rows::decode(
            sections.rows,
            base.len().div_ceil(model.scales.segment()),
            REACH,
        )?;
        scratch.contexts.resize(base.len(), 0);
        model.fill_contexts(start, base, &rows, &mut scratch.contexts);
        gather_expected(skip, &mut scratch.contexts, &mut scratch.positions);
        scratch.symbols.resize(scratch.contexts.len(), 0);
        let mut decoder = Decoder::new(model.tables.decoder(), sections.stream, sections.lanes)?;
        decoder.decode(&scratch.contexts, &mut scratch.symbols)?;
        decoder.finish()?;
        let contexts = model.contexts();
        let low_bits: Vec<u32> = (0..=255).map(|c| contexts.low_bits(c)).collect();
        for ((&position, &context), &symbol) in scratch
            .positions
            .iter()
            .zip(&scratch.contexts)
            .zip(&scratch.symbols)
        {
            let at = position as usize;
            let steps = sections.steps(symbol, low_bits[usize::from(context)])?;
            out[at] = W::narrow(model.layout.step_from(base[at].widen(), steps));
        }
        sections.finish()?;
    }
    let count = reader.length("number of changes", base.len())?;
    let bytes = reader.take(reader.remaining())?;
    gaps::decode(bytes, count, base.len(), |at, steps| {
        out[at] = W::narrow(model.layout.step_from(base[at].widen(), steps));
    })
}

/// Leaves only contexts of at least `skip`, with their positions.
fn gather_expected(skip: u8, contexts: &mut Vec<u8>, positions: &mut Vec<u32>) {
    positions.clear();
    let mut kept = 0;
    let len = contexts.len();
    for at in (0..len).step_by(64) {
        let end = (at + 64).min(len);
        let mut mask = expected_mask(&contexts[at..end], skip);
        while mask != 0 {
            let i = at + mask.trailing_zeros() as usize;
            contexts[kept] = contexts[i];
            positions.push(i as u32);
            kept += 1;
            mask &= mask - 1;
        }
    }
    contexts.truncate(kept);
}

vectorised! {
    fn expected_mask(contexts: &[u8], skip: u8) -> u64 {
        contexts.iter().enumerate().fold(0, |mask, (i, &c)| mask | u64::from(c >= skip) << i)
    }
}
