//! The index of an artifact: what is in it and what it refers to in its base.
//!
//! `docs/delta-format.md` specifies the bytes. An index read from disk is checked as a whole;
//! everything after it trusts the types.

mod read;
mod write;

use std::ops::Range;

use sparse_checkpoint::{Dtype, Header, RelPath};

use crate::digest::{BaseDigest, Check, FileDigest};
use crate::words::layout;

/// Low-rank predictions are used.
pub(crate) const FEATURE_LOW_RANK: u64 = 1;
/// The base is cast from another dtype.
pub(crate) const FEATURE_CAST: u64 = 1 << 1;
/// Low-rank predictions of tensors with more than two dimensions are used.
pub(crate) const FEATURE_LOW_RANK_STACKED: u64 = 1 << 2;
/// Chunks in rank codes are used.
pub(crate) const FEATURE_RANKED: u64 = 1 << 3;
/// Everything this version can read.
pub(crate) const KNOWN_FEATURES: u64 =
    FEATURE_LOW_RANK | FEATURE_CAST | FEATURE_LOW_RANK_STACKED | FEATURE_RANKED;

/// Largest index that is written and read, unpacked. It holds the headers of all shards, each of
/// which may have a hundred million bytes.
pub(crate) const MAX_INDEX_BYTES: u64 = 1 << 28;

/// Most tensors that are written and read: several times what the largest models have. What is kept
/// of each takes a hundred times what an index can say it with.
pub(crate) const MAX_TENSORS: usize = 1 << 19;

#[derive(Debug, Clone)]
pub(crate) struct Index {
    /// Features without which the artifact cannot be read.
    pub(crate) required: u64,
    /// Features that a reader may ignore.
    pub(crate) optional: u64,
    /// Program and version that wrote it.
    pub(crate) creator: String,
    /// What the user called the base.
    pub(crate) base_id: String,
    pub(crate) base_digest: BaseDigest,
    /// Table sets, as bytes.
    pub(crate) tables: Vec<Vec<u8>>,
    pub(crate) files: Vec<File>,
}

/// One file of the fine-tune.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: RelPath,
    pub(crate) size: u64,
    pub(crate) digest: FileDigest,
    /// Of the stored bytes that belong to no tensor.
    pub(crate) stored_check: [u8; 4],
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Shard(Shard),
    Blob(Blob),
}

/// A safetensors file: its header as it was, its tensors in the order of their data.
#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) header: Header,
    pub(crate) tensors: Vec<Tensor>,
    /// Bytes that belong to no tensor, zstd-compressed together; 0 where there are none.
    pub(crate) gaps: u64,
}

/// Any other file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) source: BlobSource,
    /// Bytes in the artifact.
    pub(crate) stored: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BlobSource {
    /// zstd alone.
    Packed,
    /// zstd with a file of the base as dictionary.
    Against(BaseFile),
    /// Equal to a file of the base.
    Copy(BaseFile),
}

/// A file of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseFile {
    pub(crate) path: RelPath,
    pub(crate) size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    /// Of the original bytes.
    pub(crate) check: Check,
    /// Of the stored bytes.
    pub(crate) stored_check: [u8; 4],
    pub(crate) source: Source,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Equal to a tensor of the base, bytes and dtype.
    Copy(BaseTensor),
    /// Equal to an earlier tensor of the artifact: file and tensor number.
    Alias(usize, usize),
    /// Chunks of the codec, weights modelled as floats.
    Coded(Coded),
    /// zstd-compressed chunks of bytes.
    Raw(Raw),
}

/// A tensor of the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BaseTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<u64>,
    /// The first bytes of its digest, to name the tensor that differs.
    pub(crate) check: [u8; 4],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Coded {
    pub(crate) base: Option<BaseTensor>,
    /// Low bits that are zero in every weight.
    pub(crate) shift: u8,
    /// Which table set; used only where there is a base.
    pub(crate) tables: usize,
    /// Whether a low-rank prediction precedes the chunks.
    pub(crate) low_rank: bool,
    /// Bytes of scales and low-rank factors.
    pub(crate) model: u64,
    /// Bytes of each chunk.
    pub(crate) chunks: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    /// A base tensor of the same size, XORed.
    pub(crate) base: Option<BaseTensor>,
    pub(crate) chunks: Vec<u64>,
}

impl File {
    /// Stored bytes that belong to no tensor: a packed file, or a shard's gaps.
    pub(crate) fn stored(&self) -> u64 {
        match &self.content {
            Content::Shard(shard) => shard.gaps,
            Content::Blob(blob) => blob.stored,
        }
    }
}

impl Source {
    pub(crate) fn base(&self) -> Option<&BaseTensor> {
        match self {
            Self::Copy(base) => Some(base),
            Self::Alias(..) => None,
            Self::Coded(coded) => coded.base.as_ref(),
            Self::Raw(raw) => raw.base.as_ref(),
        }
    }

    /// Bytes in the artifact.
    pub(crate) fn stored(&self) -> u64 {
        match self {
            Self::Copy(_) | Self::Alias(..) => 0,
            Self::Coded(coded) => coded.model + coded.chunks.iter().sum::<u64>(),
            Self::Raw(raw) => raw.chunks.iter().sum(),
        }
    }
}

impl Index {
    /// Where each file's stored bytes start in the data section, and where the last ones end;
    /// `None` if that overflows.
    ///
    /// A shard's gaps come first, then its tensors in order.
    pub(crate) fn file_offsets(&self) -> Option<Vec<u64>> {
        let mut at = 0u64;
        let mut offsets = vec![0];
        for file in &self.files {
            match &file.content {
                Content::Blob(blob) => at = at.checked_add(blob.stored)?,
                Content::Shard(shard) => {
                    at = at.checked_add(shard.gaps)?;
                    for tensor in &shard.tensors {
                        at = at.checked_add(tensor.source.stored())?;
                    }
                }
            }
            offsets.push(at);
        }
        Some(offsets)
    }

    /// Calls `f` for each reference to a base tensor, by name in sorted order, each once.
    pub(crate) fn base_tensors(&self) -> Vec<&BaseTensor> {
        let mut tensors: Vec<_> = self
            .files
            .iter()
            .filter_map(|file| match &file.content {
                Content::Shard(shard) => Some(shard),
                Content::Blob(_) => None,
            })
            .flat_map(|shard| &shard.tensors)
            .filter_map(|tensor| tensor.source.base())
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        tensors.dedup_by(|a, b| a.name == b.name);
        tensors
    }

    /// The base files referred to, by path, each once.
    pub(crate) fn base_files(&self) -> Vec<&BaseFile> {
        let mut files: Vec<_> = self
            .files
            .iter()
            .filter_map(|file| match &file.content {
                Content::Blob(Blob {
                    source: BlobSource::Against(base) | BlobSource::Copy(base),
                    ..
                }) => Some(base),
                _ => None,
            })
            .collect();
        files.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
        files.dedup_by(|a, b| a.path == b.path);
        files
    }
}

/// Weights in the chunks of a tensor, before rounding to whole segments.
pub(crate) const CHUNK_WEIGHTS: u64 = 1 << 18;
/// Bytes in the chunks of a tensor stored raw.
pub(crate) const RAW_CHUNK_BYTES: u64 = 1 << 20;

/// The chunks of a tensor: weights `0..common` have a base and are cut apart from the rest.
pub(crate) fn chunks(common: u64, total: u64, chunk: u64) -> impl Iterator<Item = Range<u64>> {
    let chunk = chunk.max(1);
    let pieces = move |range: Range<u64>| {
        range
            .clone()
            .step_by(usize::try_from(chunk).unwrap_or(usize::MAX))
            .map(move |at| at..at.saturating_add(chunk).min(range.end))
    };
    pieces(0..common).chain(pieces(common..total))
}

/// Weights in each chunk of a coded tensor whose segments have this many.
pub(crate) fn chunk_weights(segment: u64) -> u64 {
    let segment = segment.clamp(1, CHUNK_WEIGHTS);
    segment * (CHUNK_WEIGHTS / segment)
}

/// How many of a tensor's weights stand at the same place in the base: all, or where the first
/// dimension grew or shrank, the rows they share; `None` where the rows differ.
pub(crate) fn common_weights(base: &[u64], fine: &[u64]) -> Option<u64> {
    let (&[base_rows, ref base_row @ ..], &[fine_rows, ref fine_row @ ..]) = (base, fine) else {
        return (base == fine).then_some(1);
    };
    // From the rows on: where there are none, the product of the other sides may overflow.
    (base_row == fine_row).then(|| fine_row.iter().fold(base_rows.min(fine_rows), |n, s| n * s))
}

/// The length of a tensor's rows.
pub(crate) fn width(shape: &[u64]) -> usize {
    usize::try_from(shape.last().copied().unwrap_or(1)).unwrap_or(usize::MAX)
}

/// Whether the codec models this dtype.
pub(crate) fn is_modelled(dtype: Dtype) -> bool {
    layout(dtype).is_some()
}

#[cfg(test)]
mod tests;
