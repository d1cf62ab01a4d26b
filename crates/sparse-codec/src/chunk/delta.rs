//! Encoding of DELTA and SPARSE chunks: the steps from the base, given how many are expected.

use super::symbols::SymbolCoder;
use super::{Model, Scratch, TAG_DELTA, TAG_SPARSE, gaps, rows};
use crate::Word;
use crate::bytes::put_varint;
use crate::chunk::ChunkMode;
use crate::context::{ESCAPE, UNCHANGED};
use crate::fit::REACH;
use crate::score::{CANDIDATES, Scorer, best, bucket};
use crate::simd::vectorised;

pub(super) fn encode<W: Word>(
    model: &Model<'_>,
    scorer: &Scorer,
    start: usize,
    base: &[W],
    fine: &[W],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> ChunkMode {
    let (len, segment) = (base.len(), model.scales.segment());
    let sparse = is_sparse(base, fine);
    // Where every step gets a symbol, that is done segment by segment, while the steps are in the
    // first-level cache; otherwise all are needed to choose which get one.
    scratch
        .steps
        .resize(if sparse { len } else { segment.min(len) }, 0);
    scratch.buckets.resize(segment.min(len), 0);
    scratch.contexts.resize(len, 0);
    scratch.symbols.resize(len, 0);
    model.scales.tile(segment.min(len), &mut scratch.tile);
    let mut coder = SymbolCoder::new(model);
    let mut rows: Vec<i32> = Vec::with_capacity(len.div_ceil(segment));
    for at in (0..len).step_by(segment) {
        let range = at..(at + segment).min(len);
        let here = if sparse {
            range.clone()
        } else {
            0..range.len()
        };
        let columns = model
            .scales
            .columns_at(&scratch.tile, start + at, range.len());
        let contexts = &mut scratch.contexts[range.clone()];
        let steps = &mut scratch.steps[here];
        let buckets = &mut scratch.buckets[..range.len()];
        let words = &base[range.clone()];
        measure(
            model.layout.shift(),
            words,
            &fine[range.clone()],
            steps,
            buckets,
        );
        let last = rows.last().copied().unwrap_or(0);
        rows.push(choose_row(
            model, scorer, words, columns, buckets, last, contexts,
        ));
        if !sparse {
            coder.push(contexts, steps, &mut scratch.symbols[range]);
        }
    }
    if !sparse {
        out.push(TAG_DELTA);
        coder
            .finish(scratch)
            .write(model, scratch, &rows::encode(&rows), out);
        return ChunkMode::Delta;
    }
    let skip = choose_skip(model, scratch);
    let mut exceptions = Vec::new();
    if skip == 0 {
        out.push(TAG_DELTA);
    } else {
        out.extend_from_slice(&[TAG_SPARSE, skip]);
        exceptions = keep_expected(skip, scratch);
    }
    coder.push(&scratch.contexts, &scratch.steps, &mut scratch.symbols);
    if scratch.contexts.is_empty() {
        out.push(0);
    } else {
        coder
            .finish(scratch)
            .write(model, scratch, &rows::encode(&rows), out);
    }
    if skip > 0 {
        put_varint(out, exceptions.len() as u64);
        out.extend_from_slice(&gaps::encode(&exceptions));
        return ChunkMode::Sparse;
    }
    ChunkMode::Delta
}

/// Weights that are looked at together to tell whether a chunk is sparse, and how many are passed
/// over between them.
const LOOK: usize = 64;
const PASS: usize = 1024;

/// Whether most weights seem unchanged.
fn is_sparse<W: Word>(base: &[W], fine: &[W]) -> bool {
    let (mut seen, mut changed) = (0, 0);
    for (base, fine) in base.chunks(PASS).zip(fine.chunks(PASS)) {
        let (base, fine) = (&base[..LOOK.min(base.len())], &fine[..LOOK.min(fine.len())]);
        seen += base.len();
        changed += base.iter().zip(fine).filter(|(b, f)| b != f).count();
    }
    changed * 2 < seen
}

vectorised! {
    /// Steps and their classes.
    fn measure<W: Word>(shift: u32, base: &[W], fine: &[W], steps: &mut [i32], buckets: &mut [u8]) {
        for ((step, &b), &f) in steps.iter_mut().zip(base).zip(fine) {
            *step = b.steps_to(f, shift);
        }
        for (bucket_, &step) in buckets.iter_mut().zip(steps.iter()) {
            *bucket_ = bucket(step);
        }
    }
}

/// Finds a segment's scale, given that of the segment before, and the contexts that follow from it.
fn choose_row<W: Word>(
    model: &Model<'_>,
    scorer: &Scorer,
    words: &[W],
    columns: &[i8],
    buckets: &[u8],
    last: i32,
    out: &mut [u8],
) -> i32 {
    let contexts = model.contexts();
    let fill = |row: i32, out: &mut [u8]| {
        contexts.fill(words, i32::from(model.scales.base) + row, columns, out);
    };
    let mut row = last;
    // A scale at the edge of the candidates may lie beyond: look again from there.
    for _ in 0..4 {
        fill(row, out);
        let costs: [i32; CANDIDATES] = scorer.run_half(out, buckets);
        let offset = best(&costs, row - last);
        let moved = (row + offset).clamp(-REACH, REACH);
        if moved == row {
            break;
        }
        row = moved;
        fill(row, out);
        if (-7..7).contains(&offset) {
            break;
        }
    }
    row
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
    scratch.symbols.truncate(kept);
    exceptions
}
