//! Encoding of DELTA and SPARSE chunks: the steps from the base, given how many are expected.

use super::{Model, Scratch, TAG_DELTA, TAG_SPARSE, gaps, rows};
use crate::bits::BitWriter;
use crate::bytes::{put_varint, zigzag};
use crate::chunk::ChunkMode;
use crate::context::{ESCAPE, UNCHANGED, split};
use crate::fit::REACH;
use crate::rans::{self, Lanes};
use crate::score::{CANDIDATES, Scorer, best, bucket};
use crate::simd::vectorised;
use crate::tables::BIT;
use crate::{Layout, Word};

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
    model.scales.tile(&mut scratch.tile);
    let segment = model.scales.segment();
    let mut last = 0i32;
    let mut rows = Vec::with_capacity(base.len().div_ceil(segment));
    for at in (0..base.len()).step_by(segment) {
        let range = at..(at + segment).min(base.len());
        let words = &base[range.clone()];
        let columns = model.scales.columns_at(&scratch.tile, start + at, words.len());
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
        let price = skipped * ((total / skipped.max(1.0)).log2() + 3.5);
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

    fn write(
        &self,
        model: &Model<'_>,
        scratch: &Scratch,
        rows: &[u8],
        out: &mut Vec<u8>,
    ) {
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
