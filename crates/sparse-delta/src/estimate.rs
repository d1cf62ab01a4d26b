//! `estimate`: how large a delta would be, from a sample of every tensor.

use std::ops::Range;
use std::time::Instant;

use sparse_checkpoint::Checkpoint;
use sparse_codec::Scales;

use crate::Error;
use crate::artifact::artifact_bytes;
use crate::basedigest::BaseDigests;
use crate::compress::{Encoders, count_changed, full, index, model_bytes};
use crate::digest::{Check, FileDigest};
use crate::index::{
    BaseFile, BaseTensor, Blob, BlobSource, Coded, Content, File, RAW_CHUNK_BYTES, Raw, Shard,
    Source, Tensor, chunk_weights, chunks, width,
};
use crate::plan::{Effort, Kind, TensorPlan, plan};
use crate::progress::{Progress, step};
use crate::raw::{self, MAX_DICTIONARY};
use crate::source::{read_cast, read_words};
use crate::words::Words;

/// Weights coded of each tensor, at most: whole rows spread over it.
const WEIGHTS: u64 = 1 << 18;
/// Chunks coded of a tensor stored raw, at most.
const RAW_CHUNKS: usize = 4;

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

/// Ranges of whole rows and segments spread evenly over `part`, all of it where it is small.
///
/// Each range starts in the same column, so that they can be coded as one run.
fn spread(part: Range<u64>, width: u64, segment: u64) -> Vec<Range<u64>> {
    let total = part.end - part.start;
    // Rows hold whole segments or segments whole rows; else columns are seldom modelled.
    let unit = width.max(segment).next_multiple_of(segment);
    if total <= WEIGHTS || unit > WEIGHTS / 4 {
        let len = total.min(WEIGHTS);
        return std::iter::once(part.start..part.start + len).collect();
    }
    let (units, wanted) = (total / unit, WEIGHTS / unit);
    (0..wanted)
        .map(|i| {
            let start = part.start + (2 * i + 1) * units / (2 * wanted) * unit;
            start..start + unit
        })
        .collect()
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
        let width = width(info.shape());
        let (common, segment) = match &tensor.kind {
            Kind::Delta(delta) => (delta.common, delta.scales.segment()),
            _ => (0, Scales::segment_for(width)),
        };
        let chunk = chunk_weights(segment as u64);
        let mut copied = true;
        let mut sizes = Vec::new();
        for part in [0..common, common..info.elements()] {
            let total = part.end - part.start;
            if total == 0 {
                continue;
            }
            let with_base = part.start < common;
            let sample = spread(part.clone(), width as u64, segment as u64);
            let mut fine = Words::zeros(info.dtype().bits() as usize / 8, 0);
            let mut predicted = fine.clone();
            for range in &sample {
                let len = range.end - range.start;
                let words = read_words(&tensor.fine, range.start, len)?;
                if let Kind::Delta(delta) = &tensor.kind
                    && with_base
                {
                    let base = read_cast(&delta.base, range.start, len, info.dtype())?;
                    self.changed += count_changed(&base, &words);
                    copied &= base == words;
                    predicted.extend(&delta.predict(range.start, base));
                } else {
                    self.changed += len;
                    copied = false;
                }
                fine.extend(&words);
            }
            self.weights += fine.len() as u64;
            let mut out = Vec::new();
            match &tensor.kind {
                Kind::Delta(delta) if with_base => {
                    self.encoders
                        .delta(delta, part.start, &predicted, &fine, &mut out);
                }
                _ => {
                    full(&tensor.fine, segment, &fine, &mut out);
                }
            }
            let rate = out.len() as f64 / fine.len() as f64;
            sizes.extend(
                chunks(0, total, chunk)
                    .map(|range| ((range.end - range.start) as f64 * rate).round() as u64),
            );
        }
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
        let every = ranges.len().div_ceil(RAW_CHUNKS).max(1);
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
