//! Encoding of DELTA and SPARSE chunks: the steps from the base, given how many are expected.

use super::masks::{at_least, changed};
use super::pack::{self, GROUP};
use super::ranked::{RankCoder, Ranks};
use super::symbols::SymbolCoder;
use super::{Model, Scratch, TAG_DELTA, TAG_RANKED, TAG_SPARSE, gaps, rows};
use crate::Word;
use crate::bytes::put_varint;
use crate::chunk::ChunkMode;
use crate::context::{BLOCK, ESCAPE, UNCHANGED};
use crate::fit::REACH;
use crate::score::{CANDIDATES, Scorer, best, look};
use crate::simd::prefetch;

pub(super) fn encode<W: Word>(
    model: &Model<'_>,
    scorer: &Scorer,
    start: usize,
    [base, fine]: [&[W]; 2],
    in_ranks: bool,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> ChunkMode {
    let (len, segment) = (base.len(), model.scales.segment());
    let sparse = is_sparse(base, fine);
    scratch.contexts.resize(len, 0);
    scratch.symbols.resize(len, 0);
    model.scales.tile(segment.min(len), &mut scratch.tile);
    let mut coder = SymbolCoder::new(model);
    let mut ranked = None;
    let mut rows: Vec<i32> = Vec::with_capacity(len.div_ceil(segment));
    let block = (BLOCK / segment).max(1) * segment;
    for at in (0..len).step_by(block) {
        let end = (at + block).min(len);
        for at in (at..end).step_by(segment) {
            let range = at..(at + segment).min(len);
            let columns = model
                .scales
                .columns_at(&scratch.tile, start + at, range.len());
            let contexts = &mut scratch.contexts[range.clone()];
            let (words, fines) = (&base[range.clone()], &fine[range]);
            for words in [words, fines] {
                prefetch(words.as_ptr().wrapping_add(BLOCK), words.len());
            }
            let looked = look(
                in_ranks,
                model.layout.shift(),
                words,
                fines,
                &mut scratch.looked,
            );
            let last = rows.last().copied().unwrap_or(0);
            rows.push(choose_row(
                model, scorer, words, columns, looked, last, contexts,
            ));
        }
        // Where every weight gets a symbol, that is done while its words are in the first-level
        // cache; otherwise all contexts are needed to choose which get one.
        if sparse {
            continue;
        }
        let (contexts, words) = (&scratch.contexts[at..end], &base[at..end]);
        if at == 0 && in_ranks {
            let ranks = Ranks::new(model);
            if ranks.suit(contexts) {
                ranked = Some(RankCoder::new(
                    ranks,
                    crate::simd::level(),
                    std::mem::take(&mut scratch.ranked),
                ));
            }
        }
        match &mut ranked {
            Some(coder) => coder.push(contexts, words, &fine[at..end]),
            None => coder.push(
                contexts,
                words,
                &fine[at..end],
                &mut scratch.symbols[at..end],
            ),
        }
    }
    if let Some(coder) = ranked {
        out.push(TAG_RANKED);
        scratch.ranked = coder.write(&rows::encode(&rows), out);
        return ChunkMode::Ranked;
    }
    let skip = if sparse {
        choose_skip(model, &scratch.contexts, base, fine)
    } else {
        0
    };
    if skip == 0 {
        out.push(TAG_DELTA);
        if sparse {
            coder.push(&scratch.contexts, base, fine, &mut scratch.symbols);
        }
        coder
            .finish(scratch)
            .write(model, scratch, &rows::encode(&rows), out);
        return ChunkMode::Delta;
    }
    out.extend_from_slice(&[TAG_SPARSE, skip]);
    let kept = keep_expected(skip, model.layout.shift(), base, fine, scratch);
    if scratch.contexts.is_empty() {
        out.push(0);
    } else {
        let (contexts, symbols) = (&scratch.contexts, &mut scratch.symbols);
        coder.push(
            contexts,
            &kept.base[..kept.count],
            &kept.fine[..kept.count],
            symbols,
        );
        coder
            .finish(scratch)
            .write(model, scratch, &rows::encode(&rows), out);
    }
    put_varint(out, kept.exceptions.len() as u64);
    out.extend_from_slice(&gaps::encode(&kept.exceptions));
    *W::buffers(&mut scratch.kept) = [kept.base, kept.fine];
    ChunkMode::Sparse
}

/// Whether most weights seem unchanged, by one group of 64 in so many weights: each is a wait for
/// the memory.
fn is_sparse<W: Word>(base: &[W], fine: &[W]) -> bool {
    const PASS: usize = 4096;
    let (mut seen, mut differ) = (0, 0);
    for (base, fine) in base.chunks(PASS).zip(fine.chunks(PASS)) {
        let len = base.len().min(GROUP);
        seen += len;
        differ += changed(&base[..len], &fine[..len]).count_ones() as usize;
    }
    differ * 2 < seen
}

/// Finds a segment's scale, given that of the segment before, and the contexts that follow from it.
fn choose_row<W: Word>(
    model: &Model<'_>,
    scorer: &Scorer,
    words: &[W],
    columns: &[i8],
    looked: &[u8],
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
        let costs: [i32; CANDIDATES] = scorer.run_looked(out, looked);
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
fn choose_skip<W: Word>(model: &Model<'_>, contexts: &[u8], base: &[W], fine: &[W]) -> u8 {
    let seen = census(contexts, base, fine);
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
fn census<W: Word>(contexts: &[u8], base: &[W], fine: &[W]) -> [[u32; 2]; 256] {
    let stride = if contexts.len() < 1 << 16 { 1 } else { 4 };
    // Neighbours count into tables of their own: a count need not wait for the one before it.
    let mut tables = [[[0u32; 2]; 256]; 2];
    let words = base.chunks(GROUP).zip(fine.chunks(GROUP));
    let groups = contexts.chunks(GROUP).zip(words);
    for (contexts, (base, fine)) in groups.step_by(stride) {
        let changed = changed(base, fine);
        for (i, &context) in contexts.iter().enumerate() {
            tables[i % 2][usize::from(context)][(changed >> i & 1) as usize] += 1;
        }
    }
    std::array::from_fn(|context| {
        let of = |changed: usize| tables.iter().map(|table| table[context][changed]).sum();
        [of(0), of(1)]
    })
}

/// The weights of a chunk that get a symbol, side by side, and the other changes.
struct Kept<W> {
    /// The first `count` of each, lent from the scratch.
    base: Vec<W>,
    fine: Vec<W>,
    count: usize,
    exceptions: Vec<(u32, i32)>,
}

/// Keeps only the weights whose context is at least `skip`; their contexts stay in the scratch.
fn keep_expected<W: Word>(
    skip: u8,
    shift: u32,
    base: &[W],
    fine: &[W],
    scratch: &mut Scratch,
) -> Kept<W> {
    let (level, len) = (crate::simd::level(), base.len());
    let [kept_base, kept_fine] = std::mem::take(W::buffers(&mut scratch.kept));
    let mut kept = Kept {
        base: kept_base,
        fine: kept_fine,
        count: 0,
        exceptions: Vec::new(),
    };
    for words in [&mut kept.base, &mut kept.fine] {
        if words.len() < len + GROUP {
            words.resize(len + GROUP, W::default());
        }
    }
    let mut count = 0;
    for start in (0..len).step_by(GROUP) {
        let range = start..(start + GROUP).min(len);
        // A copy, as what is kept is written to where others were.
        let mut contexts = [0; GROUP];
        let contexts = &mut contexts[..range.len()];
        contexts.copy_from_slice(&scratch.contexts[range.clone()]);
        let (base, fine) = (&base[range.clone()], &fine[range.clone()]);
        let all = u64::MAX >> (GROUP - range.len());
        let expected = at_least(contexts, skip) & all;
        let mut others = changed(base, fine) & !expected;
        while others != 0 {
            let i = others.trailing_zeros() as usize;
            let steps = base[i].steps_to(fine[i], shift);
            kept.exceptions.push(((start + i) as u32, steps));
            others &= others - 1;
        }
        pack::bytes(level, contexts, expected, &mut scratch.contexts[count..]);
        pack::words(level, base, expected, &mut kept.base[count..]);
        count += pack::words(level, fine, expected, &mut kept.fine[count..]);
    }
    kept.count = count;
    scratch.contexts.truncate(count);
    scratch.symbols.truncate(count);
    kept
}
