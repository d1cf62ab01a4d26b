//! From coded chunks to the index entries of their tensors.

use sparse_checkpoint::{Checkpoint, TensorRef};

use super::encoders::Done;
use crate::Error;
use crate::artifact::ArtifactWriter;
use crate::basedigest::BaseDigests;
use crate::digest::{TensorDigest, stored_check};
use crate::index::{BaseTensor, Coded, Raw, Source, Tensor};
use crate::plan::{Kind, TensorPlan};

/// Index entries in the making.
pub(super) struct Entries<'a> {
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
    pub(super) fn new(plans: &'a [TensorPlan<'a>]) -> Self {
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

    pub(super) fn add(
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
    pub(super) fn finish(mut self, fine: &Checkpoint) -> Vec<Tensor> {
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
