//! Coding the tensors of a shard and collecting their index entries.

use std::collections::BTreeMap;
use std::sync::mpsc;

use sparse_checkpoint::{Checkpoint, Shard, TensorRef};
use sparse_codec::{ChunkMode, Encoder, encode_full};

use super::jobs::{Input, Job, ShardReader};
use crate::Error;
use crate::artifact::ArtifactWriter;
use crate::basedigest::BaseDigests;
use crate::digest::{TensorDigest, stored_check};
use crate::index::{self, BaseTensor, Coded, Content, File, Raw, Source, Tensor};
use crate::plan::{DeltaPlan, Kind, Plan, TensorPlan};
use crate::progress::{Progress, step};
use crate::raw;
use crate::words::{Words, each_width, layout};

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

/// A coded chunk.
struct Done {
    tensor: usize,
    bytes: Vec<u8>,
    mode: &'static str,
    weights: u64,
    changed: u64,
    /// Bytes of the original.
    size: u64,
    end: Option<(TensorDigest, Option<TensorDigest>)>,
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

fn gap_bytes(shard: &Shard) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    for gap in shard.gaps() {
        let at = all.len();
        all.resize(at + (gap.end - gap.start) as usize, 0);
        shard.read_at(shard.data_start() + gap.start, &mut all[at..])?;
    }
    Ok(all)
}

/// One encoder for each fit, per thread.
pub(crate) struct Encoders<'a> {
    plan: &'a Plan<'a>,
    encoders: Vec<Option<Encoder<'a>>>,
}

impl<'a> Encoders<'a> {
    pub(crate) fn new(plan: &'a Plan<'a>) -> Self {
        Self {
            plan,
            encoders: plan.fits.iter().map(|_| None).collect(),
        }
    }

    /// Codes weights of a tensor that has a base, given what is predicted for them.
    pub(crate) fn delta(
        &mut self,
        delta: &DeltaPlan<'_>,
        start: u64,
        predicted: &Words,
        fine: &Words,
        out: &mut Vec<u8>,
    ) -> ChunkMode {
        let plan = self.plan;
        let encoder = self.encoders[delta.fit]
            .get_or_insert_with(|| Encoder::new(delta.layout, &plan.fits[delta.fit]));
        let start = start as usize;
        match (predicted, fine) {
            (Words::W8(b), Words::W8(f)) => encoder.encode(&delta.scales, start, b, f, out),
            (Words::W16(b), Words::W16(f)) => encoder.encode(&delta.scales, start, b, f, out),
            (Words::W32(b), Words::W32(f)) => encoder.encode(&delta.scales, start, b, f, out),
            // The base has been cast to the fine-tune's dtype.
            _ => ChunkMode::Plain,
        }
    }

    fn encode(&mut self, plan: &TensorPlan<'_>, job: Job) -> Result<Done, Error> {
        let mut bytes = Vec::new();
        let mut done = Done {
            tensor: job.tensor,
            bytes: Vec::new(),
            mode: "raw",
            weights: 0,
            changed: 0,
            size: 0,
            end: None,
        };
        match (job.input, &plan.kind) {
            (Input::End(digest, base), kind) => {
                if let Kind::Alias(_) = kind {
                    done.mode = "alias";
                    done.weights = plan.fine.info().elements();
                    done.size = plan.fine.info().bytes();
                }
                done.end = Some((digest, base));
            }
            (Input::Weights(Some(base), fine), Kind::Delta(delta)) => {
                done.changed = count_changed(&base, &fine);
                let predicted = delta.predict(job.start, base);
                let mode = self.delta(delta, job.start, &predicted, &fine, &mut bytes);
                done.mode = match mode {
                    // Equal to the prediction, or nearly so: not to the base.
                    ChunkMode::Copy | ChunkMode::Delta | ChunkMode::Sparse
                        if delta.low_rank.is_some() =>
                    {
                        "lowrank"
                    }
                    mode => mode_name(mode),
                };
                done.weights = fine.len() as u64;
                done.size = fine.bytes().len() as u64;
            }
            (Input::Weights(_, fine), kind) => {
                let width = index::width(plan.fine.info().shape());
                let segment = match kind {
                    Kind::Delta(delta) => delta.scales.segment(),
                    _ => sparse_codec::Scales::segment_for(width),
                };
                done.mode = mode_name(full(&plan.fine, segment, &fine, &mut bytes));
                done.weights = fine.len() as u64;
                done.changed = done.weights;
                done.size = fine.bytes().len() as u64;
            }
            (Input::Bytes(base, fine), _) => {
                let bits = u64::from(plan.fine.info().dtype().bits());
                let element = (bits / 8).max(1) as usize;
                bytes = raw::encode(base.as_deref(), &fine, element)
                    .map_err(Error::io("compress", plan.fine.shard().full_path()))?;
                done.weights = fine.len() as u64 * 8 / bits;
                done.changed = match &base {
                    Some(base) => base
                        .chunks(element)
                        .zip(fine.chunks(element))
                        .filter(|(b, f)| b != f)
                        .count() as u64,
                    None => done.weights,
                };
                done.size = fine.len() as u64;
                if base.as_deref() == Some(&fine) {
                    done.mode = "copy";
                }
            }
        }
        done.bytes = bytes;
        Ok(done)
    }
}

/// Codes weights without a base.
pub(crate) fn full(
    tensor: &TensorRef<'_>,
    segment: usize,
    fine: &Words,
    out: &mut Vec<u8>,
) -> ChunkMode {
    match layout(tensor.info().dtype()) {
        Some(layout) => each_width!(fine, fine => encode_full(layout, segment, fine, out)),
        None => ChunkMode::Plain,
    }
}

fn mode_name(mode: ChunkMode) -> &'static str {
    match mode {
        ChunkMode::Copy => "copy",
        ChunkMode::Const => "const",
        ChunkMode::Delta => "delta",
        ChunkMode::Sparse => "sparse",
        ChunkMode::Full => "full",
        ChunkMode::Plain => "raw",
    }
}

/// Weights whose words differ.
pub(crate) fn count_changed(base: &Words, fine: &Words) -> u64 {
    match (base, fine) {
        (Words::W8(b), Words::W8(f)) => differences(b, f),
        (Words::W16(b), Words::W16(f)) => differences(b, f),
        (Words::W32(b), Words::W32(f)) => differences(b, f),
        _ => fine.len() as u64,
    }
}

fn differences<W: Eq>(base: &[W], fine: &[W]) -> u64 {
    base.iter().zip(fine).filter(|(b, f)| b != f).count() as u64
}

/// Index entries in the making.
struct Entries<'a> {
    plans: &'a [TensorPlan<'a>],
    tensors: Vec<Tensor>,
    chunks: Vec<u64>,
    /// Chunks equal to the base at the start of a tensor, a few bytes each. They are held back:
    /// if all chunks are such, none is written.
    held: Option<Vec<u8>>,
    model: u64,
    stored: blake3::Hasher,
}

impl<'a> Entries<'a> {
    fn new(plans: &'a [TensorPlan<'a>]) -> Self {
        Self {
            plans,
            tensors: Vec::new(),
            chunks: Vec::new(),
            held: Some(Vec::new()),
            model: 0,
            stored: blake3::Hasher::new(),
        }
    }

    fn store(&mut self, bytes: &[u8], writer: &mut ArtifactWriter) -> Result<(), Error> {
        self.stored.update(bytes);
        writer.write(bytes)
    }

    fn add(
        &mut self,
        done: Done,
        writer: &mut ArtifactWriter,
        digests: &mut BaseDigests,
    ) -> Result<(), Error> {
        let plan = &self.plans[done.tensor];
        if let Some((digest, base)) = done.end {
            if let (Some(base), Some(tensor)) = (base, base_of(&plan.kind)) {
                digests
                    .tensors
                    .insert(tensor.info().name().to_owned(), base);
            }
            return self.end(plan, digest, base, writer);
        }
        self.chunks.push(done.bytes.len() as u64);
        if let Some(held) = &mut self.held {
            held.extend_from_slice(&done.bytes);
            if done.mode == "copy" {
                return Ok(());
            }
            return self.release(plan, writer);
        }
        self.store(&done.bytes, writer)
    }

    /// Writes what precedes the first chunk, and the chunks held back.
    fn release(&mut self, plan: &TensorPlan<'_>, writer: &mut ArtifactWriter) -> Result<(), Error> {
        let held = self.held.take().unwrap_or_default();
        let head = model_bytes(&plan.kind);
        self.model = head.len() as u64;
        self.store(&head, writer)?;
        self.store(&held, writer)
    }

    fn end(
        &mut self,
        plan: &TensorPlan<'_>,
        digest: TensorDigest,
        base: Option<TensorDigest>,
        writer: &mut ArtifactWriter,
    ) -> Result<(), Error> {
        let base = base.zip(base_of(&plan.kind)).map(|(digest, tensor)| {
            let mut check = [0; 4];
            check.copy_from_slice(&digest.0[..4]);
            BaseTensor {
                name: tensor.info().name().to_owned(),
                dtype: tensor.info().dtype(),
                shape: tensor.info().shape().to_vec(),
                check,
            }
        });
        let chunks = std::mem::take(&mut self.chunks);
        let info = plan.fine.info();
        let same_kind =
            |base: &BaseTensor| base.dtype == info.dtype() && base.shape == info.shape();
        let copied =
            self.held.is_some() && !chunks.is_empty() && base.as_ref().is_some_and(same_kind);
        if self.held.is_some() && !chunks.is_empty() && !copied {
            self.release(plan, writer)?;
        }
        let source = match (&plan.kind, base) {
            (Kind::Alias(number), _) => Source::Alias(0, *number),
            (_, Some(base)) if copied => Source::Copy(base),
            (Kind::Raw(_), base) => Source::Raw(Raw { base, chunks }),
            (Kind::Full, _) => Source::Coded(Coded {
                base: None,
                shift: 0,
                tables: 0,
                low_rank: false,
                model: 0,
                chunks,
            }),
            (Kind::Delta(delta), base) => Source::Coded(Coded {
                base,
                shift: delta.layout.shift() as u8,
                tables: delta.fit,
                low_rank: delta.low_rank.is_some(),
                model: self.model,
                chunks,
            }),
        };
        self.tensors.push(Tensor {
            check: digest.check(),
            stored_check: stored_check(&std::mem::take(&mut self.stored)),
            source,
        });
        self.held = Some(Vec::new());
        self.model = 0;
        Ok(())
    }

    /// The entries; aliases point to file and tensor.
    fn finish(mut self, fine: &Checkpoint) -> Vec<Tensor> {
        for tensor in &mut self.tensors {
            if let Source::Alias(file, number) = &mut tensor.source {
                for shard in fine.shards() {
                    if *number < shard.tensors().len() {
                        break;
                    }
                    *number -= shard.tensors().len();
                    *file += 1;
                }
            }
        }
        self.tensors
    }
}

fn base_of<'a>(kind: &Kind<'a>) -> Option<TensorRef<'a>> {
    match kind {
        Kind::Delta(delta) => Some(delta.base),
        Kind::Raw(base) => *base,
        _ => None,
    }
}

/// Scales and low-rank factors, which precede the chunks.
pub(crate) fn model_bytes(kind: &Kind<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Kind::Delta(delta) = kind {
        delta.scales.write(&mut bytes);
        if let Some(low_rank) = &delta.low_rank {
            low_rank.write(&mut bytes);
        }
    }
    bytes
}
