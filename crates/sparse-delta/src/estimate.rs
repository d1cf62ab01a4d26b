//! `estimate`: how large a delta would be, from a sample of every tensor.

use std::time::Instant;

use sparse_checkpoint::Checkpoint;
use sparse_codec::Scales;

use crate::Error;
use crate::artifact::artifact_bytes;
use crate::basedigest::BaseDigests;
use crate::compress::{Encoders, full, index, model_bytes};
use crate::digest::{Check, FileDigest};
use crate::index::{
    BaseFile, BaseTensor, Blob, BlobSource, Coded, Content, File, RAW_CHUNK_BYTES, Raw, Shard,
    Source, Tensor, chunk_weights, chunks, width,
};
use crate::plan::{Effort, Kind, TensorPlan, plan};
use crate::progress::{Progress, step};
use crate::raw::{self, MAX_DICTIONARY};
use crate::source::{read_cast, read_words};

/// Weights coded of each tensor, at most: in pieces spread over it.
const PIECES: u64 = 4;
const PIECE: u64 = 1 << 16;

/// How large a delta would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimated {
    /// Bytes of all files of the fine-tune.
    pub original_bytes: u64,
    /// Bytes of all files of the artifact.
    pub estimated_delta_bytes: u64,
    /// Share of the sampled weights that equal the base's.
    pub unchanged_fraction: f64,
    /// Weights that were coded to find out.
    pub sampled_parameters: u64,
    /// Wall time.
    pub seconds: f64,
}

impl Estimated {
    /// Original over delta.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.original_bytes as f64 / self.estimated_delta_bytes.max(1) as f64
    }
}

/// Estimates the size of `fine` as a delta of `base`, without writing anything.
///
/// The plan is the one that compressing would make; then pieces of each tensor are coded and
/// their sizes scaled up. The index is built in full, with blank digests.
///
/// # Errors
/// If a checkpoint cannot be read.
pub fn estimate(
    base: &Checkpoint,
    fine: &Checkpoint,
    effort: Effort,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Estimated, Error> {
    let started = Instant::now();
    let plan = plan(base, fine, effort, threads, progress)?;
    progress.start("estimate", fine.total_bytes());
    let mut sample = Sample {
        encoders: Encoders::new(&plan),
        weights: 0,
        changed: 0,
        noise: 0x9e37_79b9_7f4a_7c15,
    };
    let mut data = 0;
    let mut files = Vec::new();
    let mut number = 0;
    for shard in fine.shards() {
        let mut tensors = Vec::new();
        for tensor in &plan.tensors[number..number + shard.tensors().len()] {
            step(progress, tensor.fine.info().bytes())?;
            tensors.push(sample.tensor(tensor)?);
        }
        number += tensors.len();
        data += tensors.iter().map(|t| t.source.stored()).sum::<u64>();
        files.push(File {
            path: shard.path().clone(),
            size: shard.size(),
            digest: FileDigest(sample.blank()),
            stored_check: sample.blank(),
            content: Content::Shard(Shard {
                header: shard.header().clone(),
                tensors,
                gaps: 0,
            }),
        });
    }
    for plain in fine.files() {
        step(progress, plain.size())?;
        let blob = estimate_blob(plain, base)?;
        data += blob.stored;
        files.push(File {
            path: plain.path().clone(),
            size: plain.size(),
            digest: FileDigest(sample.blank()),
            stored_check: sample.blank(),
            content: Content::Blob(blob),
        });
    }
    let index = index(&plan, files, "", &BaseDigests::default());
    let estimated = artifact_bytes(data, &index).map_err(Error::io("estimate", fine.root()))?;
    Ok(Estimated {
        original_bytes: fine.total_bytes(),
        estimated_delta_bytes: estimated,
        unchanged_fraction: 1.0 - sample.changed as f64 / sample.weights.max(1) as f64,
        sampled_parameters: sample.weights,
        seconds: started.elapsed().as_secs_f64(),
    })
}

struct Sample<'a> {
    encoders: Encoders<'a>,
    weights: u64,
    changed: u64,
    noise: u64,
}

impl Sample<'_> {
    /// Bytes that compress as little as a digest.
    fn blank<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| {
            self.noise ^= self.noise << 13;
            self.noise ^= self.noise >> 7;
            self.noise ^= self.noise << 17;
            (self.noise >> 32) as u8
        })
    }

    fn tensor(&mut self, tensor: &TensorPlan<'_>) -> Result<Tensor, Error> {
        let info = tensor.fine.info();
        let mut base_ref = |base: &sparse_checkpoint::TensorRef<'_>| BaseTensor {
            name: base.info().name().to_owned(),
            dtype: base.info().dtype(),
            shape: base.info().shape().to_vec(),
            check: self.blank(),
        };
        let source = match &tensor.kind {
            Kind::Alias(number) => Source::Alias(0, *number),
            Kind::Raw(base) => {
                let base_ref = base.as_ref().map(base_ref);
                let chunks = self.raw(tensor, base.as_ref())?;
                Source::Raw(Raw {
                    base: base_ref,
                    chunks,
                })
            }
            Kind::Full => Source::Coded(Coded {
                base: None,
                shift: 0,
                tables: 0,
                low_rank: false,
                model: 0,
                chunks: self.coded(tensor)?.0,
            }),
            Kind::Delta(delta) => {
                let base = base_ref(&delta.base);
                let (chunks, copied) = self.coded(tensor)?;
                let same = base.dtype == info.dtype() && base.shape == info.shape();
                if copied && same && delta.low_rank.is_none() {
                    Source::Copy(base)
                } else {
                    Source::Coded(Coded {
                        base: Some(base),
                        shift: delta.layout.shift() as u8,
                        tables: delta.fit,
                        low_rank: delta.low_rank.is_some(),
                        model: model_bytes(&tensor.kind).len() as u64,
                        chunks,
                    })
                }
            }
        };
        Ok(Tensor {
            check: Check(self.blank()),
            stored_check: self.blank(),
            source,
        })
    }

    /// Estimated bytes of each chunk, and whether all that was seen equals the base.
    fn coded(&mut self, tensor: &TensorPlan<'_>) -> Result<(Vec<u64>, bool), Error> {
        let info = tensor.fine.info();
        let (common, segment) = match &tensor.kind {
            Kind::Delta(delta) => (delta.common, delta.scales.segment()),
            _ => (0, Scales::segment_for(width(info.shape()))),
        };
        let chunk = chunk_weights(segment as u64);
        let mut copied = true;
        let ranges: Vec<_> = chunks(common, info.elements(), chunk).collect();
        // Small tensors are coded whole, of large ones a piece of some chunks.
        let every = ranges.len().div_ceil(PIECES as usize).max(1);
        let mut rates: Vec<(f64, u64)> = Vec::new();
        for (i, range) in ranges.iter().enumerate() {
            let with_base = range.start < common;
            // The first chunk without a base has a rate of its own.
            let first_new = range.start == common && common > 0;
            if i % every != every / 2 && !first_new && i + 1 != ranges.len() {
                continue;
            }
            let whole = range.end - range.start;
            let piece = (PIECE / segment as u64).max(1) * segment as u64;
            let len = if ranges.len() == 1 && whole <= 4 * PIECE {
                whole
            } else {
                piece.min(whole)
            };
            let start = range.start + (whole - len) / 2 / segment as u64 * segment as u64;
            let fine = read_words(&tensor.fine, start, len)?;
            let mut out = Vec::new();
            self.weights += len;
            match &tensor.kind {
                Kind::Delta(delta) if with_base => {
                    let base = read_cast(&delta.base, start, len, info.dtype())?;
                    let (_, changed) = self.encoders.delta(delta, start, &base, &fine, &mut out);
                    self.changed += changed;
                    copied &= changed == 0;
                }
                _ => {
                    full(&tensor.fine, segment, &fine, &mut out);
                    self.changed += len;
                    copied = false;
                }
            }
            rates.push((out.len() as f64 / len as f64, range.start));
        }
        let rate = |with_base: bool| {
            let of: Vec<f64> = rates
                .iter()
                .filter(|r| (r.1 < common) == with_base)
                .map(|r| r.0)
                .collect();
            of.iter().sum::<f64>() / of.len().max(1) as f64
        };
        let (with_base, without) = (rate(true), rate(false));
        let sizes = ranges
            .iter()
            .map(|range| {
                let rate = if range.start < common {
                    with_base
                } else {
                    without
                };
                ((range.end - range.start) as f64 * rate).round() as u64
            })
            .collect();
        Ok((sizes, copied))
    }

    fn raw(
        &mut self,
        tensor: &TensorPlan<'_>,
        base: Option<&sparse_checkpoint::TensorRef<'_>>,
    ) -> Result<Vec<u64>, Error> {
        let info = tensor.fine.info();
        let ranges: Vec<_> = chunks(0, info.bytes(), RAW_CHUNK_BYTES).collect();
        let bits = u64::from(info.dtype().bits());
        let element = (bits / 8).max(1) as usize;
        let every = ranges.len().div_ceil(PIECES as usize).max(1);
        let (mut coded, mut seen) = (0, 0);
        for range in ranges.iter().skip(every / 2).step_by(every) {
            let mut fine = vec![0; (range.end - range.start) as usize];
            tensor.fine.read_range(range.clone(), &mut fine)?;
            let mut against = None;
            if let Some(base) = base {
                let mut bytes = vec![0; fine.len()];
                base.read_range(range.clone(), &mut bytes)?;
                self.changed += u64::from(bytes != fine) * fine.len() as u64 * 8 / bits;
                against = Some(bytes);
            } else {
                self.changed += fine.len() as u64 * 8 / bits;
            }
            self.weights += fine.len() as u64 * 8 / bits;
            seen += fine.len() as u64;
            coded += raw::encode(against.as_deref(), &fine, element)
                .map_err(Error::io("estimate", tensor.fine.shard().full_path()))?
                .len() as u64;
        }
        Ok(ranges
            .iter()
            .map(|r| (r.end - r.start) * coded / seen.max(1))
            .collect())
    }
}

fn estimate_blob(plain: &sparse_checkpoint::PlainFile, base: &Checkpoint) -> Result<Blob, Error> {
    // Large files are sampled from their start.
    let take = plain.size().min(4 << 20);
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(plain.open()?, take), &mut bytes)
        .map_err(Error::io("read", plain.full_path()))?;
    let against = base
        .file(plain.path().as_str())
        .filter(|file| file.size() <= MAX_DICTIONARY && file.size() > 0);
    let mut dictionary = Vec::new();
    let mut source = BlobSource::Packed;
    if let Some(file) = against {
        dictionary = file.read(MAX_DICTIONARY)?;
        let base = BaseFile {
            path: file.path().clone(),
            size: file.size(),
        };
        if dictionary == bytes {
            return Ok(Blob {
                source: BlobSource::Copy(base),
                stored: 0,
            });
        }
        source = BlobSource::Against(base);
    }
    let mut packed = Vec::new();
    raw::pack(bytes.as_slice(), &dictionary, take, &mut packed)
        .map_err(Error::io("estimate", plain.full_path()))?;
    let stored = packed.len() as u64 * plain.size() / take.max(1);
    Ok(Blob { source, stored })
}
