//! Encoding of DELTA and SPARSE chunks: the steps from the base, given how many are expected.

use super::masks::{at_least, changed};
use super::pack::{self, GROUP};
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
    let seen = census(&scratch.contexts, &scratch.steps);
    let seen = &seen[..model.contexts().count()];
    let total = seen.iter().flatten().map(|&n| f64::from(n)).sum::<f64>();
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

/// How often each context has a step of zero, and another, in all weights or, of many, in every
/// fourth group: shares are what counts.
fn census(contexts: &[u8], steps: &[i32]) -> [[u32; 2]; 256] {
    let stride = if contexts.len() < 1 << 16 { 1 } else { 4 };
    // Neighbours count into tables of their own: a count need not wait for the one before it.
    let mut tables = [[[0u32; 2]; 256]; 2];
    let groups = contexts.chunks(GROUP).zip(steps.chunks(GROUP));
    for (contexts, steps) in groups.step_by(stride) {
        let changed = changed(steps);
        for (i, &context) in contexts.iter().enumerate() {
            tables[i % 2][usize::from(context)][(changed >> i & 1) as usize] += 1;
        }
    }
    std::array::from_fn(|context| {
        let of = |changed: usize| tables.iter().map(|table| table[context][changed]).sum();
        [of(0), of(1)]
    })
}

/// Keeps only the weights whose context is at least `skip`; returns the other changes.
fn keep_expected(skip: u8, scratch: &mut Scratch) -> Vec<(u32, i32)> {
    let mut exceptions = Vec::new();
    let (level, len) = (crate::simd::level(), scratch.contexts.len());
    let mut kept = 0;
    for start in (0..len).step_by(GROUP) {
        let range = start..(start + GROUP).min(len);
        // Copies, as what is kept is written to where others were.
        let (mut contexts, mut steps) = ([0; GROUP], [0; GROUP]);
        let (contexts, steps) = (&mut contexts[..range.len()], &mut steps[..range.len()]);
        contexts.copy_from_slice(&scratch.contexts[range.clone()]);
        for (bits, &step) in steps.iter_mut().zip(&scratch.steps[range.clone()]) {
            *bits = step as u32;
        }
        let all = u64::MAX >> (GROUP - range.len());
        let expected = at_least(contexts, skip) & all;
        let mut others = changed(&scratch.steps[range]) & !expected;
        while others != 0 {
            let i = others.trailing_zeros() as usize;
            exceptions.push(((start + i) as u32, steps[i] as i32));
            others &= others - 1;
        }
        pack::bytes(level, contexts, expected, &mut scratch.contexts[kept..]);
        let mut packed = [0; GROUP];
        let count = pack::words(level, steps, expected, &mut packed);
        let places = &mut scratch.steps[kept..kept + count];
        for (place, &bits) in places.iter_mut().zip(&packed) {
            *place = bits as i32;
        }
        kept += count;
    }
    scratch.contexts.truncate(kept);
    scratch.steps.truncate(kept);
    scratch.symbols.truncate(kept);
    exceptions
}
