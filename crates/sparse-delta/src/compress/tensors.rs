//! Coding the tensors of a shard and collecting their index entries.

use std::collections::BTreeMap;
use std::sync::mpsc;

use sparse_checkpoint::{Checkpoint, Shard};

use super::encoders::Encoders;
use super::entries::Entries;
use super::jobs::{ShardReader, gap_bytes};
use crate::Error;
use crate::artifact::ArtifactWriter;
use crate::basedigest::BaseDigests;
use crate::digest::stored_check;
use crate::index::{self, Content, File};
use crate::plan::Plan;
use crate::progress::{Progress, step};
use crate::raw;

/// What every shard's coding needs and adds to.
pub(super) struct ShardCoder<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) fine: &'a Checkpoint,
    /// Number of the shard's first tensor.
    pub(super) first: usize,
    pub(super) threads: usize,
    pub(super) progress: &'a dyn Progress,
    pub(super) digests: &'a mut BaseDigests,
    pub(super) modes: &'a mut BTreeMap<&'static str, u64>,
    pub(super) changed: &'a mut u64,
}

impl ShardCoder<'_> {
    /// Codes the shard into `writer` and returns its entry.
    pub(super) fn encode(
        &mut self,
        shard: &Shard,
        writer: &mut ArtifactWriter,
    ) -> Result<File, Error> {
        let plans = &self.plan.tensors[self.first..self.first + shard.tensors().len()];
        // Bytes between tensors are stored first: the reader of the artifact needs them first.
        let gaps = gap_bytes(shard)?;
        let packed = if gaps.is_empty() {
            Vec::new()
        } else {
            let mut packed = Vec::new();
            raw::pack(gaps.as_slice(), &[], gaps.len() as u64, &mut packed)
                .map_err(Error::io("compress", shard.full_path()))?;
            packed
        };
        writer.write(&packed)?;
        let mut reader = ShardReader::new(shard, plans, &gaps);
        let mut entries = Entries::new(plans);
        let plan = self.plan;
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(4);
            let reader = &mut reader;
            scope.spawn(move || reader.run(&mut |job| sender.send(job).is_ok()));
            crate::pipeline::ordered(
                self.threads,
                receiver,
                || Encoders::new(plan),
                |encoders, job| encoders.encode(&plans[job.tensor], job),
                |done| {
                    step(self.progress, done.size)?;
                    if done.weights > 0 {
                        *self.modes.entry(done.mode).or_insert(0) += done.weights;
                        *self.changed += done.changed;
                    }
                    entries.add(done, writer, self.digests)
                },
            )
        })?;
        let tensors = entries.finish(self.fine);
        Ok(File {
            path: shard.path().clone(),
            size: shard.size(),
            digest: reader.digest(),
            stored_check: stored_check(blake3::Hasher::new().update(&packed)),
            content: Content::Shard(index::Shard {
                header: shard.header().clone(),
                tensors,
                gaps: packed.len() as u64,
            }),
        })
    }
}
