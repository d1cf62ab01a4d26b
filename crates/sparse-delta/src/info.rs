//! `info`: what is in a delta.

use std::path::Path;

use crate::artifact::{Artifact, FORMAT_VERSION};
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
    /// `copy`, `alias`, `delta`, `lowrank`, `full` or `raw`.
    pub mode: &'static str,
    /// Bytes in the artifact.
    pub bytes: u64,
    /// The base tensor it refers to, where that has another name.
    pub base: Option<String>,
}

/// Reads the index of `delta`; nothing else of it is read.
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
        tensors: tensors(index),
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

fn tensors(index: &Index) -> Vec<TensorSummary> {
    index
        .files
        .iter()
        .filter_map(|file| match &file.content {
            Content::Shard(shard) => Some(shard),
            Content::Blob(_) => None,
        })
        .flat_map(|shard| shard.tensors.iter().zip(shard.header.tensors()))
        .map(|(tensor, info)| TensorSummary {
            name: info.name().to_owned(),
            dtype: info.dtype().name(),
            shape: info.shape().to_vec(),
            mode: match &tensor.source {
                Source::Copy(_) => "copy",
                Source::Alias(..) => "alias",
                Source::Coded(coded) if coded.low_rank => "lowrank",
                Source::Coded(coded) if coded.base.is_some() => "delta",
                Source::Coded(_) => "full",
                Source::Raw(_) => "raw",
            },
            bytes: tensor.source.stored(),
            base: tensor
                .source
                .base()
                .filter(|base| base.name != info.name())
                .map(|base| base.name.clone()),
        })
        .collect()
}
