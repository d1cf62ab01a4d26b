//! Chunks: a run of one tensor's weights, coded on its own.
//!
//! A chunk starts with a tag that says how it is coded; `docs/delta-format.md` has the layout of
//! each. The encoder takes the mode that costs the fewest bytes.

mod apply;
#[cfg(target_arch = "x86_64")]
mod apply_avx2;
#[cfg(target_arch = "x86_64")]
mod apply_avx512;
mod delta;
mod full;
#[cfg(target_arch = "x86_64")]
mod fused;
mod gaps;
mod masks;
mod pack;
mod ranked;
mod rows;
mod symbols;
#[cfg(target_arch = "x86_64")]
mod symbols_avx512;
mod undelta;

use crate::context::Contexts;
use crate::fit::Fit;
use crate::score::Scorer;
use crate::word::Buffers;
use crate::{CodecError, Layout, Reader, Scales, TableSet, Word};

const TAG_COPY: u8 = 0;
const TAG_CONST: u8 = 1;
const TAG_DELTA: u8 = 2;
const TAG_SPARSE: u8 = 3;
const TAG_FULL: u8 = 4;
const TAG_PLAIN: u8 = 5;
const TAG_RANKED: u8 = 6;

/// How a chunk is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChunkMode {
    /// Equal to the base.
    Copy,
    /// One word repeated.
    Const,
    /// Every difference to the base, given the steps expected.
    Delta,
    /// Differences where steps are expected, gaps between the few other changes.
    Sparse,
    /// Without the base: magnitudes given the row's scale.
    Full,
    /// The words as they are.
    Plain,
    /// As [`ChunkMode::Delta`], in codes that take less time and more bytes.
    Ranked,
}

impl ChunkMode {
    /// The mode of a coded chunk, from its first byte.
    ///
    /// # Errors
    /// [`CodecError`] where that is no mode.
    pub fn of(bytes: &[u8]) -> Result<Self, CodecError> {
        match Reader::new(bytes, "chunk").u8()? {
            TAG_COPY => Ok(Self::Copy),
            TAG_CONST => Ok(Self::Const),
            TAG_DELTA => Ok(Self::Delta),
            TAG_SPARSE => Ok(Self::Sparse),
            TAG_FULL => Ok(Self::Full),
            TAG_PLAIN => Ok(Self::Plain),
            TAG_RANKED => Ok(Self::Ranked),
            tag => Err(CodecError::Invalid {
                field: "chunk mode",
                found: u64::from(tag),
                expected: "0 to 6",
            }),
        }
    }
}

/// What chunks of one tensor are coded with.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    layout: Layout,
    tables: &'a TableSet,
    scales: &'a Scales,
}

impl<'a> Model<'a> {
    /// A tensor's layout, the table set it uses and its own scales.
    #[must_use]
    pub fn new(layout: Layout, tables: &'a TableSet, scales: &'a Scales) -> Self {
        Self {
            layout,
            tables,
            scales,
        }
    }

    fn contexts(&self) -> Contexts {
        Contexts::new(self.layout)
    }

    /// Fills in the contexts of the block at `at` in a chunk that starts at weight `start` of the
    /// tensor, given the scale of each of the chunk's segments and the tensor's tile.
    fn fill_block<W: Word>(
        &self,
        tile: &[i8],
        start: usize,
        at: usize,
        block: &[W],
        rows: &[i32],
        out: &mut [u8],
    ) {
        let contexts = self.contexts();
        let segment = self.scales.segment();
        let columns = self.scales.columns_at(tile, start + at, block.len());
        let mut done = 0;
        while done < block.len() {
            let row = (at + done) / segment;
            let end = ((row + 1) * segment - at).min(block.len());
            contexts.fill(
                &block[done..end],
                i32::from(self.scales.base) + rows[row],
                columns.get(done..end).unwrap_or(&[]),
                &mut out[done..end],
            );
            done = end;
        }
    }
}

/// Buffers that are used again from chunk to chunk.
#[derive(Debug, Default)]
pub struct Scratch {
    looked: Vec<u8>,
    contexts: Vec<u8>,
    symbols: Vec<u8>,
    masks: Vec<u64>,
    places: Vec<u32>,
    tile: Vec<i8>,
    words: Vec<u16>,
    stream: Vec<u8>,
    kept: Buffers,
    ranked: ranked::RankBuffers,
}

/// Encodes chunks of tensors that were fitted together.
#[derive(Debug)]
pub struct Encoder<'a> {
    layout: Layout,
    ranked: bool,
    tables: &'a TableSet,
    scorer: &'a Scorer,
    scratch: Scratch,
}

impl<'a> Encoder<'a> {
    /// For tensors of `layout` in `fit`.
    #[must_use]
    pub fn new(layout: Layout, fit: &'a Fit) -> Self {
        Self {
            layout,
            ranked: fit.ranked,
            tables: &fit.tables,
            scorer: &fit.scorer,
            scratch: Scratch::default(),
        }
    }

    /// Appends the chunk that holds weights `start..` of a tensor, given the base's weights at
    /// the same places.
    ///
    /// # Panics
    /// If `base` and `fine` differ in length.
    pub fn encode<W: Word>(
        &mut self,
        scales: &Scales,
        start: usize,
        base: &[W],
        fine: &[W],
        out: &mut Vec<u8>,
    ) -> ChunkMode {
        assert_eq!(base.len(), fine.len());
        if base == fine {
            out.push(TAG_COPY);
            return ChunkMode::Copy;
        }
        if encode_const(fine, out) {
            return ChunkMode::Const;
        }
        let model = Model::new(self.layout, self.tables, scales);
        let at = out.len();
        let mode = delta::encode(
            &model,
            self.scorer,
            start,
            [base, fine],
            self.ranked,
            &mut self.scratch,
            out,
        );
        // Where the base says little, coding without it can be shorter.
        let len = out.len() - at;
        if len * 10 > size_of_val(fine) * 6 && self.full_may_be_shorter(scales, fine, len) {
            let mut full = Vec::new();
            let other = encode_full(self.layout, scales.segment(), fine, &mut full);
            if full.len() < len {
                out.truncate(at);
                out.extend_from_slice(&full);
                return other;
            }
        }
        mode
    }

    /// Whether coding weights without their base may take less than `len` bytes, by a part of them;
    /// always where that is more than the weights themselves.
    fn full_may_be_shorter<W: Word>(&self, scales: &Scales, fine: &[W], len: usize) -> bool {
        if fine.len() <= 2 * TRIAL || len >= size_of_val(fine) {
            return true;
        }
        let segment = scales.segment();
        let start = (fine.len() - TRIAL) / 2 / segment * segment;
        let mut part = Vec::new();
        encode_full(self.layout, segment, &fine[start..start + TRIAL], &mut part);
        // Its table weighs more on a part than on the whole: a tenth is more than that.
        part.len() * (fine.len() / TRIAL) < len / 10 * 11
    }
}

/// Weights that stand for a chunk where it is asked whether to code it without its base.
const TRIAL: usize = 1 << 13;

/// Appends a chunk that needs no base; `segment` weights share a scale.
pub fn encode_full<W: Word>(
    layout: Layout,
    segment: usize,
    fine: &[W],
    out: &mut Vec<u8>,
) -> ChunkMode {
    if encode_const(fine, out) {
        return ChunkMode::Const;
    }
    let at = out.len();
    full::encode(layout, segment, fine, out);
    if out.len() - at <= size_of_val(fine) {
        return ChunkMode::Full;
    }
    out.truncate(at);
    out.push(TAG_PLAIN);
    for word in fine {
        out.extend_from_slice(&word.widen().to_le_bytes()[..layout.bytes()]);
    }
    ChunkMode::Plain
}

fn encode_const<W: Word>(fine: &[W], out: &mut Vec<u8>) -> bool {
    let Some((&first, rest)) = fine.split_first() else {
        return false;
    };
    if rest.is_empty() || rest.iter().any(|&w| w != first) {
        return false;
    }
    out.push(TAG_CONST);
    out.extend_from_slice(&first.widen().to_le_bytes());
    true
}

/// Decodes a chunk into `out`, which the caller has sized.
///
/// `base` holds the base's weights at the same places, or is empty where there is no base.
///
/// # Errors
/// [`CodecError`] for bytes that no encoder wrote; `out` then holds unspecified weights.
pub fn decode<W: Word>(
    model: &Model<'_>,
    start: usize,
    base: &[W],
    bytes: &[u8],
    scratch: &mut Scratch,
    out: &mut [W],
) -> Result<(), CodecError> {
    let mode = ChunkMode::of(bytes)?;
    let mut reader = Reader::new(&bytes[1..], "chunk");
    let needs_base = matches!(
        mode,
        ChunkMode::Copy | ChunkMode::Delta | ChunkMode::Sparse | ChunkMode::Ranked
    );
    if needs_base && base.len() != out.len() {
        return Err(CodecError::Invalid {
            field: "chunk mode",
            found: u64::from(bytes[0]),
            expected: "a mode without a base, as there is none",
        });
    }
    match mode {
        ChunkMode::Copy => {
            out.copy_from_slice(base);
            reader.finish()
        }
        ChunkMode::Const => {
            let word = reader
                .take(4)?
                .iter()
                .rev()
                .fold(0, |w, &b| w << 8 | u32::from(b));
            out.fill(W::narrow(word));
            reader.finish()
        }
        ChunkMode::Delta => undelta::decode(model, start, base, reader, scratch, out),
        ChunkMode::Ranked => ranked::decode(model, start, base, reader, scratch, out),
        ChunkMode::Sparse => undelta::decode_sparse(model, start, base, reader, scratch, out),
        ChunkMode::Full => full::decode(model.layout, reader, out),
        ChunkMode::Plain => {
            let words = reader.take(out.len() * model.layout.bytes())?;
            for (out, word) in out.iter_mut().zip(words.chunks_exact(model.layout.bytes())) {
                *out = W::narrow(word.iter().rev().fold(0, |w, &b| w << 8 | u32::from(b)));
            }
            reader.finish()
        }
    }
}

#[cfg(test)]
mod tests;
