//! Coding the tensors of a shard and collecting their index entries.

use std::collections::BTreeMap;
use std::sync::mpsc;

use sparse_checkpoint::{Checkpoint, Shard};

use super::blobs::StoredWriter;
use super::encoders::Encoders;
use super::entries::Entries;
use super::jobs::{Gaps, ShardReader};
use crate::Error;
use crate::artifact::ArtifactWriter;
use crate::basedigest::BaseDigests;
use crate::index::{self, Content, File};
use crate::plan::{Kind, Plan};
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
    /// For each tensor so far, how many of its weights changed.
    pub(super) changed: &'a mut Vec<u64>,
    /// Whether any chunk is in rank codes.
    pub(super) ranked: &'a mut bool,
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
        let mut gaps = Gaps::new(shard, self.progress);
        let mut packed = StoredWriter::new(writer);
        if gaps.len() > 0 {
            let len = gaps.len();
            raw::pack(&mut gaps, &[], len, &mut packed)
                .map_err(Error::of_io("compress", shard.full_path()))?;
        }
        let (gap_bytes, stored_check) = packed.finish();
        let mut reader = ShardReader::new(shard, plans);
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
                    }
                    *self.ranked |= done.ranked;
                    let number = self.first + done.tensor;
                    self.changed.resize(self.changed.len().max(number + 1), 0);
                    self.changed[number] += match plans[done.tensor].kind {
                        Kind::Alias(other) => self.changed[other],
                        _ => done.changed,
                    };
                    entries.add(done, writer, self.digests)
                },
            )
        })?;
        if reader.gaps_digest() != gaps.digest() {
            let changed = std::io::Error::other("it changed while it was read");
            return Err(Error::io("compress", shard.full_path())(changed));
        }
        let tensors = entries.finish(self.fine);
        Ok(File {
            path: shard.path().clone(),
            size: shard.size(),
            digest: reader.digest(),
            stored_check,
            content: Content::Shard(index::Shard {
                header: shard.header().clone(),
                tensors,
                gaps: gap_bytes,
            }),
        })
    }
}
