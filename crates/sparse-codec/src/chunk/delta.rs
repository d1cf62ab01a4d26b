//! Encoding of DELTA and SPARSE chunks: the steps from the base, given how many are expected.

use super::masks::at_least;
use super::{Model, Scratch, TAG_DELTA, TAG_SPARSE, gaps, rows};
use crate::Word;
use crate::bits::BitWriter;
use crate::bytes::{put_varint, zigzag};
use crate::chunk::ChunkMode;
use crate::context::{Contexts, ESCAPE, UNCHANGED, split};
use crate::fit::REACH;
use crate::rans::{self, Lanes};
use crate::score::{CANDIDATES, Scorer, best, bucket};
use crate::simd::vectorised;
use crate::tables::BIT;

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
    scratch.buckets.resize(model.scales.segment().min(len), 0);
    scratch.contexts.resize(len, 0);
    let (rows, changed) = choose_rows(model, scorer, start, base, fine, scratch);
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
    fn measure<W: Word>(shift: u32, base: &[W], fine: &[W], steps: &mut [i32], buckets: &mut [u8]) -> usize {
        let mut same = 0u32;
        for ((step, &b), &f) in steps.iter_mut().zip(base).zip(fine) {
            *step = b.steps_to(f, shift);
            same += u32::from(*step == 0);
        }
        for (bucket_, &step) in buckets.iter_mut().zip(steps.iter()) {
            *bucket_ = bucket(step);
        }
        steps.len() - same as usize
    }
}

/// Finds each segment's scale and counts the weights that changed; leaves steps and contexts in
/// `scratch`.
fn choose_rows<W: Word>(
    model: &Model<'_>,
    scorer: &Scorer,
    start: usize,
    base: &[W],
    fine: &[W],
    scratch: &mut Scratch,
) -> (Vec<i32>, usize) {
    let contexts = model.contexts();
    let segment = model.scales.segment();
    model
        .scales
        .tile(segment.min(base.len()), &mut scratch.tile);
    let mut last = 0i32;
    let mut changed = 0;
    let mut rows = Vec::with_capacity(base.len().div_ceil(segment));
    for at in (0..base.len()).step_by(segment) {
        let range = at..(at + segment).min(base.len());
        let words = &base[range.clone()];
        let columns = model
            .scales
            .columns_at(&scratch.tile, start + at, words.len());
        let out = &mut scratch.contexts[range.clone()];
        let buckets = &mut scratch.buckets[..range.len()];
        let steps = &mut scratch.steps[range.clone()];
        changed += measure(model.layout.shift(), words, &fine[range], steps, buckets);
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
    (rows, changed)
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
    lanes: Lanes,
}

impl Coded {
    /// Turns steps into symbols, low bits and escapes.
    fn new(model: &Model<'_>, scratch: &mut Scratch) -> Self {
        let contexts = model.contexts();
        let held: &[[u8; 256]; 256] = model.tables.held();
        let first_raw = contexts.first_raw();
        let mut low = BitWriter::default();
        let mut escapes = Vec::new();
        scratch.symbols.resize(scratch.contexts.len(), 0);
        let mut rests = [0u32; GROUP];
        let mut counts = [0u8; GROUP];
        for ((symbols, here), steps) in scratch
            .symbols
            .chunks_mut(GROUP)
            .zip(scratch.contexts.chunks(GROUP))
            .zip(scratch.steps.chunks(GROUP))
        {
            let mut raw = at_least(here, first_raw);
            if raw != 0 {
                split_all(contexts, here, steps, symbols, &mut rests, &mut counts);
            } else {
                split_plain(steps, symbols);
            }
            for (symbol, &context) in symbols.iter_mut().zip(here) {
                *symbol = held[usize::from(context)][usize::from(*symbol)];
            }
            let kept = at_least(symbols, ESCAPE + 1);
            let mut lost = !kept & (u64::MAX >> (GROUP - here.len()));
            while lost != 0 {
                let i = lost.trailing_zeros() as usize;
                put_varint(&mut escapes, u64::from(zigzag(steps[i])));
                lost &= lost - 1;
            }
            raw &= kept;
            while raw != 0 {
                let i = raw.trailing_zeros() as usize;
                low.put(rests[i], u32::from(counts[i]));
                raw &= raw - 1;
            }
        }
        Self {
            low: low.finish(),
            escapes,
            lanes: Lanes::for_size(about_bytes(model, scratch)),
        }
    }

    fn write(&self, model: &Model<'_>, scratch: &mut Scratch, rows: &[u8], out: &mut Vec<u8>) {
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

/// Weights whose escapes and low bits are told apart by the bits of one mask.
const GROUP: usize = 64;

vectorised! {
    /// Symbols of weights without low bits.
    fn split_plain(steps: &[i32], symbols: &mut [u8]) {
        for (symbol, &steps) in symbols.iter_mut().zip(steps) {
            *symbol = split(steps, 0).0;
        }
    }
}

vectorised! {
    /// Symbols, low bits and how many there are.
    fn split_all(contexts: Contexts, here: &[u8], steps: &[i32], symbols: &mut [u8], rests: &mut [u32; GROUP], counts: &mut [u8; GROUP]) {
        let parts = symbols.iter_mut().zip(rests).zip(counts);
        for (((symbol, rest), count), (&context, &steps)) in parts.zip(here.iter().zip(steps)) {
            let bits = contexts.low_bits(context);
            (*symbol, *rest) = split(steps, bits);
            *count = bits as u8;
        }
    }
}

/// About how long the symbols will be, from one in eight of them where there are many.
fn about_bytes(model: &Model<'_>, scratch: &Scratch) -> usize {
    let costs = model.tables.costs();
    let step = if scratch.symbols.len() < 1 << 14 {
        1
    } else {
        8
    };
    let sampled = scratch.symbols.iter().zip(&scratch.contexts).step_by(step);
    let cost: usize = sampled
        .map(|(&symbol, &context)| usize::from(costs[usize::from(context)][usize::from(symbol)]))
        .sum();
    cost * step / (8 * BIT as usize)
}
