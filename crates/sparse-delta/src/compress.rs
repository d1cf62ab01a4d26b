//! `compress`: a fine-tune as a delta of its base.

mod blobs;
mod encoders;
mod entries;
mod jobs;
mod tensors;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use sparse_checkpoint::{Checkpoint, Existing, OutputDir};

use crate::Error;
use crate::artifact::ArtifactWriter;
use crate::basedigest::BaseDigests;
use crate::index::{
    Content, FEATURE_CAST, FEATURE_LOW_RANK, FEATURE_LOW_RANK_STACKED, FEATURE_RANKED, File, Index,
    MAX_TENSORS, Shard, Source,
};
use crate::plan::{Effort, Plan, Search, plan};
use crate::progress::Progress;

pub(crate) use blobs::equal;
pub(crate) use encoders::{Encoders, changed_in_rows, count_changed, full, mode_name};
pub(crate) use entries::model_bytes;

/// How to make a delta.
#[derive(Debug, Clone)]
pub struct CompressOptions {
    /// What the base is called, for people: a hub id or a path.
    pub base_id: String,
    /// How hard to look for what makes the delta smaller.
    pub effort: Effort,
    /// Threads that search and code; at least one. More than 64 are taken as 64.
    pub threads: usize,
    /// What to do about an existing output.
    pub existing: Existing,
}

/// What a delta came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Compressed {
    /// Bytes of all files of the fine-tune.
    pub original_bytes: u64,
    /// Bytes of all files of the artifact.
    pub delta_bytes: u64,
    /// Tensors in the fine-tune.
    pub tensors: usize,
    /// Weights in the fine-tune.
    pub parameters: u64,
    /// Weights that differ from the base's at the same place, or have none there. A tensor that
    /// equals another one of the fine-tune counts as that one does.
    pub changed_parameters: u64,
    /// Weights by how they are stored.
    pub modes: BTreeMap<&'static str, u64>,
    /// Wall time.
    pub seconds: f64,
}

impl Compressed {
    /// Original over delta.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.original_bytes as f64 / self.delta_bytes.max(1) as f64
    }
}

/// Writes `fine` as a delta of `base` to the folder `output`.
///
/// # Errors
/// If a checkpoint cannot be read or the output not written; nothing is left behind then.
pub fn compress(
    base: &Checkpoint,
    fine: &Checkpoint,
    output: &Path,
    options: &CompressOptions,
    progress: &dyn Progress,
) -> Result<Compressed, Error> {
    let started = Instant::now();
    let tensors = fine.tensors().count();
    if tensors > MAX_TENSORS {
        return Err(Error::TooManyTensors {
            path: fine.root().to_owned(),
            found: tensors,
        });
    }
    let folder = OutputDir::create(output, options.existing)?;
    let mut writer = ArtifactWriter::create(
        folder.path(),
        folder.target().join(crate::artifact::FILE_NAME),
    )?;
    let plan = plan(
        base,
        fine,
        options.effort,
        Search::All,
        options.threads,
        progress,
    )?;
    progress.start("compress", fine.total_bytes());

    let mut digests = BaseDigests::default();
    let mut modes = BTreeMap::new();
    let (mut changed, mut ranked) = (Vec::new(), false);
    let mut files = Vec::new();
    let mut number = 0;
    for shard in fine.shards() {
        let mut coder = tensors::ShardCoder {
            plan: &plan,
            fine,
            first: number,
            threads: options.threads,
            progress,
            digests: &mut digests,
            modes: &mut modes,
            changed: &mut changed,
            ranked: &mut ranked,
        };
        files.push(coder.encode(shard, &mut writer)?);
        number += shard.tensors().len();
    }
    for plain in fine.files() {
        files.push(blobs::encode(
            plain,
            base,
            &mut digests,
            &mut writer,
            progress,
        )?);
    }
    let mut index = index(&plan, files, &options.base_id, &digests);
    if ranked {
        index.required |= FEATURE_RANKED;
    }
    let delta_bytes = writer.finish(&index)?;
    if progress.cancelled() {
        return Err(Error::Interrupted);
    }
    folder.commit()?;
    Ok(Compressed {
        original_bytes: fine.total_bytes(),
        delta_bytes,
        tensors: plan.tensors.len(),
        parameters: fine.tensors().map(|t| t.info().elements()).sum(),
        changed_parameters: changed.iter().sum(),
        modes,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The index of an artifact with these files.
pub(crate) fn index(
    plan: &Plan<'_>,
    files: Vec<File>,
    base_id: &str,
    digests: &BaseDigests,
) -> Index {
    let tables = plan
        .fits
        .iter()
        .map(|fit| {
            let mut bytes = Vec::new();
            fit.tables.write(&mut bytes);
            bytes
        })
        .collect();
    let mut index = Index {
        required: features(&files),
        optional: 0,
        creator: concat!("sparse ", env!("CARGO_PKG_VERSION")).to_owned(),
        base_id: base_id.to_owned(),
        base_digest: crate::BaseDigest([0; 32]),
        tables,
        files,
    };
    index.base_digest = digests.combine(&index);
    index
}

fn features(files: &[File]) -> u64 {
    let mut features = 0;
    for file in files {
        let Content::Shard(Shard {
            header, tensors, ..
        }) = &file.content
        else {
            continue;
        };
        for (tensor, info) in tensors.iter().zip(header.tensors()) {
            if let Source::Coded(coded) = &tensor.source {
                if coded.low_rank {
                    features |= FEATURE_LOW_RANK;
                    if info.shape().len() > 2 {
                        features |= FEATURE_LOW_RANK_STACKED;
                    }
                }
                if coded.base.as_ref().is_some_and(|b| b.dtype != info.dtype()) {
                    features |= FEATURE_CAST;
                }
            }
        }
    }
    features
}
