//! `info`: what is in a delta.

use std::path::Path;

use sparse_codec::ChunkMode;

use crate::artifact::{Artifact, FORMAT_VERSION};
use crate::compress::mode_name;
use crate::index::{BlobSource, Content, Index, Source};
use crate::{BaseDigest, Error, FileDigest};

/// What a delta holds and what it needs.
#[derive(Debug, Clone)]
pub struct Info {
    /// Version of its format.
    pub format_version: u64,
    /// Program that wrote it.
    pub creator: String,
    /// What its base was called when it was made.
    pub base_id: String,
    /// Digest of everything it refers to in its base.
    pub base_digest: BaseDigest,
    /// Bytes of the files it rebuilds.
    pub original_bytes: u64,
    /// Bytes of the artifact.
    pub delta_bytes: u64,
    /// The files it rebuilds.
    pub files: Vec<FileInfo>,
    /// The tensors it rebuilds, in the order of their data.
    pub tensors: Vec<TensorSummary>,
}

/// A file that a delta rebuilds.
#[derive(Debug, Clone)]
pub struct FileInfo {
    /// Path in the checkpoint.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: FileDigest,
    /// Bytes in the artifact.
    pub stored_bytes: u64,
    /// `shard`, `copy`, `against-base` or `packed`.
    pub kind: &'static str,
}

/// A tensor that a delta rebuilds.
#[derive(Debug, Clone)]
pub struct TensorSummary {
    /// Its name.
    pub name: String,
    /// Its dtype, as safetensors spells it.
    pub dtype: &'static str,
    /// Its shape.
    pub shape: Vec<u64>,
    /// `copy`, `alias`, `lowrank`, `raw`, or what most of its chunks are: `delta`, `sparse`, `const`,
    /// `full`, `copy`, `raw` or `damaged`.
    pub mode: &'static str,
    /// Bytes in the artifact.
    pub bytes: u64,
    /// The base tensor it refers to, where that has another name.
    pub base: Option<String>,
}

/// Reads the index of `delta`, and of the rest of it the first byte of each chunk.
///
/// # Errors
/// If there is no delta, or its index is damaged or of a later version.
pub fn info(delta: &Path) -> Result<Info, Error> {
    let artifact = Artifact::open(delta)?;
    let index = artifact.index();
    Ok(Info {
        format_version: FORMAT_VERSION,
        creator: index.creator.clone(),
        base_id: index.base_id.clone(),
        base_digest: index.base_digest,
        original_bytes: index.files.iter().map(|f| f.size).sum(),
        delta_bytes: artifact.bytes(),
        files: files(index),
        tensors: tensors(&artifact)?,
    })
}

fn files(index: &Index) -> Vec<FileInfo> {
    index
        .files
        .iter()
        .map(|file| {
            let (kind, stored_bytes) = match &file.content {
                Content::Shard(shard) => {
                    let tensors: u64 = shard.tensors.iter().map(|t| t.source.stored()).sum();
                    ("shard", shard.gaps + tensors)
                }
                Content::Blob(blob) => match blob.source {
                    BlobSource::Packed => ("packed", blob.stored),
                    BlobSource::Against(_) => ("against-base", blob.stored),
                    BlobSource::Copy(_) => ("copy", blob.stored),
                },
            };
            FileInfo {
                path: file.path.to_string(),
                bytes: file.size,
                sha256: file.digest,
                stored_bytes,
                kind,
            }
        })
        .collect()
}

fn tensors(artifact: &Artifact) -> Result<Vec<TensorSummary>, Error> {
    let mut summaries = Vec::new();
    for (number, file) in artifact.index().files.iter().enumerate() {
        let Content::Shard(shard) = &file.content else {
            continue;
        };
        let offsets = artifact.tensor_offsets(number);
        let tensors = shard.tensors.iter().zip(shard.header.tensors());
        for ((tensor, info), offset) in tensors.zip(offsets) {
            let mode = match &tensor.source {
                Source::Copy(_) => "copy",
                Source::Alias(..) => "alias",
                Source::Coded(coded) => {
                    match mode_of_most(artifact, offset + coded.model, &coded.chunks)? {
                        // Equal to the prediction, or nearly so: not to the base.
                        "copy" | "delta" | "sparse" if coded.low_rank => "lowrank",
                        mode => mode,
                    }
                }
                Source::Raw(_) => "raw",
            };
            summaries.push(TensorSummary {
                name: info.name().to_owned(),
                dtype: info.dtype().name(),
                shape: info.shape().to_vec(),
                mode,
                bytes: tensor.source.stored(),
                base: tensor
                    .source
                    .base()
                    .filter(|base| base.name != info.name())
                    .map(|base| base.name.clone()),
            });
        }
    }
    Ok(summaries)
}

/// How most chunks are coded, given where the first of them starts and how long they are; `raw`
/// where there are none, as a tensor without weights has.
fn mode_of_most(artifact: &Artifact, start: u64, chunks: &[u64]) -> Result<&'static str, Error> {
    let mut counts: Vec<(&'static str, usize)> = Vec::new();
    let mut at = start;
    for &len in chunks {
        let first = artifact.read(at, len.min(1))?;
        let mode = ChunkMode::of(&first).map_or("damaged", mode_name);
        at += len;
        match counts.iter_mut().find(|(other, _)| *other == mode) {
            Some((_, count)) => *count += 1,
            None => counts.push((mode, 1)),
        }
    }
    // Of equals the first.
    let most = counts.iter().rev().max_by_key(|(_, count)| *count);
    Ok(most.map_or("raw", |&(mode, _)| mode))
}
