//! `estimate`: how large a delta would be, from a sample of every tensor.

use std::ops::Range;
use std::time::Instant;

use sparse_checkpoint::{Checkpoint, TensorRef};
use sparse_codec::Scales;

use crate::Error;
use crate::artifact::artifact_bytes;
use crate::basedigest::BaseDigests;
use crate::compress::{Encoders, changed_in_rows, count_changed, full, index, model_bytes};
use crate::digest::{Check, FileDigest};
use crate::index::{
    BaseFile, BaseTensor, Blob, BlobSource, CHUNK_WEIGHTS, Coded, Content, File, RAW_CHUNK_BYTES,
    Raw, Shard, Source, Tensor, chunk_weights, chunks, width,
};
use crate::plan::{DeltaPlan, Effort, Kind, TensorPlan, plan};
use crate::progress::{Progress, step};
use crate::raw::{self, MAX_DICTIONARY};
use crate::source::{read_cast, read_words};
use crate::words::Words;

/// Weights coded of each tensor where twice as many differ from the base's: whole rows spread
/// over it.
const WEIGHTS: u64 = 1 << 18;
/// Chunks coded instead where rows are too long.
const WIDE_CHUNKS: usize = 4;
/// Chunks coded of a tensor stored raw, at most.
const RAW_CHUNKS: usize = 8;
/// Chunks coded of those in which changed rows stand together, and as many changes from rows that
/// differ to rows that do not are in one.
const CUT_CHUNKS: usize = 16;
const CUTS: usize = 8;
/// Bytes of a chunk that equals the base's.
const COPIED_CHUNK: u64 = 1;
/// Bytes of the fine-tune up to which all of it is compared with the base. In larger ones some
/// chunks stand for all.
const COMPARED: u64 = 8 << 30;
/// Bytes looked at of what belongs to no tensor, and of a file beside the weights.
const SAMPLED_BYTES: u64 = 4 << 20;

/// How large a delta would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimated {
    /// Bytes of all files of the fine-tune.
    pub original_bytes: u64,
    /// Bytes of all files of the artifact.
    pub estimated_delta_bytes: u64,
    /// Share of the weights that equal the base's: of all of them, or where the fine-tune has more
    /// than 8 GiB of some in every tensor.
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
/// The plan is the one that compressing would make. Then each tensor is compared with its base,
/// pieces of what differs are coded, and their sizes scaled up. The index is built in full, with
/// blank digests.
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
        every: fine.total_bytes().div_ceil(COMPARED).max(1) as usize,
        weights: 0,
        changed: 0,
        coded: 0,
        changed_in: Vec::new(),
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
        let gaps = estimate_gaps(shard)?;
        data += gaps + tensors.iter().map(|t| t.source.stored()).sum::<u64>();
        files.push(File {
            path: shard.path().clone(),
            size: shard.size(),
            digest: FileDigest(sample.blank()),
            stored_check: sample.blank(),
            content: Content::Shard(Shard {
                header: shard.header().clone(),
                tensors,
                gaps,
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
        sampled_parameters: sample.coded,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Whole rows and segments spread evenly over `parts`.
///
/// Each range starts in the same column, so that they can be coded as one run. `None` where rows
/// are too long for that.
fn spread(parts: &[Range<u64>], width: u64, segment: u64) -> Option<Vec<Range<u64>>> {
    // Rows hold whole segments or segments whole rows; else columns are seldom modelled.
    let unit = width.max(segment).next_multiple_of(segment);
    let units = |part: &Range<u64>| {
        let first = part.start.next_multiple_of(unit);
        (first, part.end.saturating_sub(first) / unit)
    };
    let total: u64 = parts.iter().map(|part| units(part).1).sum();
    if unit > WEIGHTS / 4 || total == 0 {
        return None;
    }
    let wanted = (WEIGHTS / unit).min(total);
    let mut ranges = Vec::new();
    let (mut before, mut next) = (0, 0);
    for part in parts {
        let (first, count) = units(part);
        while next < wanted {
            let at = (2 * next + 1) * total / (2 * wanted);
            if at >= before + count {
                break;
            }
            let start = first + (at - before) * unit;
            ranges.push(start..start + unit);
            next += 1;
        }
        before += count;
    }
    Some(ranges)
}

/// So many of the numbers below `total`, evenly spaced.
fn evenly(wanted: usize, total: usize) -> impl Iterator<Item = usize> {
    let wanted = wanted.min(total);
    (0..wanted).map(move |i| (2 * i + 1) * total / (2 * wanted))
}

struct Sample<'a> {
    encoders: Encoders<'a>,
    /// One in so many chunks is compared with the base.
    every: usize,
    /// Weights, those of them that differ from the base's, and those that were coded.
    weights: u64,
    changed: u64,
    coded: u64,
    /// What of `changed` is each tensor's.
    changed_in: Vec<u64>,
    noise: u64,
}

/// How a chunk differs from the base.
#[derive(Clone, Copy)]
struct Differ {
    /// Weights that do.
    weights: u64,
    /// Whether rows that do stand together beside rows that do not.
    cut: bool,
}

impl Differ {
    fn all(range: &Range<u64>) -> Self {
        Self {
            weights: range.end - range.start,
            cut: false,
        }
    }

    fn of(
        fine: &TensorRef<'_>,
        base: &TensorRef<'_>,
        range: &Range<u64>,
        width: usize,
    ) -> Result<Self, Error> {
        let len = range.end - range.start;
        let own = read_words(fine, range.start, len)?;
        let base = read_cast(base, range.start, len, fine.dtype())?;
        let rows = changed_in_rows(&base, &own, width.clamp(1, CHUNK_WEIGHTS as usize / 4));
        let steps = rows
            .windows(2)
            .filter(|w| (w[0] == 0) != (w[1] == 0))
            .count();
        Ok(Self {
            weights: rows.iter().sum(),
            cut: (1..=CUTS).contains(&steps),
        })
    }
}

/// Weights to code.
struct Run {
    start: u64,
    predicted: Option<Words>,
    fine: Words,
    /// How many differ from the base's, or have none.
    changed: u64,
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

    fn base_ref(&mut self, base: &TensorRef<'_>) -> BaseTensor {
        BaseTensor {
            name: base.info().name().to_owned(),
            dtype: base.info().dtype(),
            shape: base.info().shape().to_vec(),
            check: self.blank(),
        }
    }

    fn tensor(&mut self, tensor: &TensorPlan<'_>) -> Result<Tensor, Error> {
        let info = tensor.fine.info();
        let same = |base: &BaseTensor| base.dtype == info.dtype() && base.shape == info.shape();
        let before = self.changed;
        let source = match &tensor.kind {
            Kind::Alias(number) => {
                self.changed += self.changed_in[*number];
                Source::Alias(0, *number)
            }
            Kind::Raw(base) => {
                let base_ref = base.as_ref().map(|base| self.base_ref(base));
                let (chunks, copied) = self.raw(tensor, base.as_ref())?;
                match base_ref {
                    Some(base) if copied && same(&base) => Source::Copy(base),
                    base => Source::Raw(Raw { base, chunks }),
                }
            }
            Kind::Full => Source::Coded(Coded {
                base: None,
                shift: 0,
                tables: 0,
                low_rank: false,
                model: 0,
                chunks: self.without_base(tensor, 0)?,
            }),
            Kind::Delta(delta) => {
                let base = self.base_ref(&delta.base);
                let (mut chunks, copied) = self.against_base(tensor, delta)?;
                if copied && same(&base) {
                    Source::Copy(base)
                } else {
                    chunks.extend(self.without_base(tensor, delta.common)?);
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
        self.weights += info.elements();
        self.changed_in.push(self.changed - before);
        Ok(Tensor {
            check: Check(self.blank()),
            stored_check: self.blank(),
            source,
        })
    }

    /// Estimated bytes of each chunk that has a base, and whether all of it equals the base.
    fn against_base(
        &mut self,
        tensor: &TensorPlan<'_>,
        delta: &DeltaPlan<'_>,
    ) -> Result<(Vec<u64>, bool), Error> {
        let segment = delta.scales.segment();
        let ranges: Vec<_> = chunks(0, delta.common, chunk_weights(segment as u64)).collect();
        let width = width(tensor.fine.shape());
        let mut differ: Vec<Differ> = Vec::new();
        for (number, range) in ranges.iter().enumerate() {
            let len = range.end - range.start;
            differ.push(match differ.last() {
                Some(&before) if number % self.every > 0 => Differ {
                    weights: len.min(before.weights),
                    ..before
                },
                _ => Differ::of(&tensor.fine, &delta.base, range, width)?,
            });
        }
        let changed: u64 = differ.iter().map(|differ| differ.weights).sum();
        self.changed += changed;
        // What differs from a prediction says little about what differs from the base.
        if delta.low_rank.is_some() {
            differ = ranges.iter().map(Differ::all).collect();
        }
        let code = |encoders: &mut Encoders<'_>, run: &Run, out: &mut Vec<u8>| {
            if let Some(predicted) = &run.predicted {
                encoders.delta(delta, run.start, predicted, &run.fine, out);
            }
        };
        let sizes = self.sizes(
            &ranges,
            &differ,
            (width as u64, segment as u64),
            |range| {
                let mut run = read_run(tensor, Some(delta), range)?;
                if delta.low_rank.is_some() {
                    run.changed = run.fine.len() as u64;
                }
                Ok(run)
            },
            code,
        )?;
        Ok((sizes, changed == 0 && delta.low_rank.is_none()))
    }

    /// Estimated bytes of each chunk from weight `first` on, which has no base.
    fn without_base(&mut self, tensor: &TensorPlan<'_>, first: u64) -> Result<Vec<u64>, Error> {
        let info = tensor.fine.info();
        let width = width(info.shape());
        let segment = match &tensor.kind {
            Kind::Delta(delta) => delta.scales.segment(),
            _ => Scales::segment_for(width),
        };
        let total = info.elements();
        let ranges: Vec<_> = chunks(first, total, chunk_weights(segment as u64))
            .filter(|range| range.start >= first)
            .collect();
        let differ: Vec<_> = ranges.iter().map(Differ::all).collect();
        self.changed += total - first;
        self.sizes(
            &ranges,
            &differ,
            (width as u64, segment as u64),
            |range| read_run(tensor, None, range),
            |_, run, out| {
                full(&tensor.fine, segment, &run.fine, out);
            },
        )
    }

    /// Estimated bytes of chunks that differ in so many of their weights: coded where these are
    /// few, else scaled up from rows or chunks spread over those that differ.
    fn sizes(
        &mut self,
        ranges: &[Range<u64>],
        differ: &[Differ],
        (width, segment): (u64, u64),
        read: impl Fn(&Range<u64>) -> Result<Run, Error>,
        code: impl Fn(&mut Encoders<'_>, &Run, &mut Vec<u8>),
    ) -> Result<Vec<u64>, Error> {
        let mut sizes = vec![COPIED_CHUNK; ranges.len()];
        let with = |cut: bool| -> Vec<usize> {
            (0..ranges.len())
                .filter(|&i| differ[i].weights > 0 && differ[i].cut == cut)
                .collect()
        };
        // Rows that are taken out of a block of changed ones cost more than they did in it.
        for (group, most) in [(with(true), CUT_CHUNKS), (with(false), WIDE_CHUNKS)] {
            let within: Vec<_> = group.iter().map(|&i| ranges[i].clone()).collect();
            let weights: u64 = within.iter().map(|range| range.end - range.start).sum();
            let most = if weights <= 2 * WEIGHTS {
                group.len()
            } else {
                most
            };
            let rows = spread(&within, width, segment).filter(|_| most == WIDE_CHUNKS);
            let (mut seen, mut coded) = (0, 0);
            let mut out = Vec::new();
            if let Some(rows) = rows {
                let mut all: Option<Run> = None;
                for row in &rows {
                    let run = read(row)?;
                    match &mut all {
                        Some(all) => all.extend(&run),
                        None => all = Some(run),
                    }
                }
                if let Some(run) = all {
                    code(&mut self.encoders, &run, &mut out);
                    self.coded += run.fine.len() as u64;
                    (seen, coded) = (run.changed, out.len());
                }
            } else {
                for i in evenly(most, group.len()).map(|i| group[i]) {
                    let run = read(&ranges[i])?;
                    out.clear();
                    code(&mut self.encoders, &run, &mut out);
                    self.coded += run.fine.len() as u64;
                    sizes[i] = out.len() as u64;
                    seen += run.changed;
                    coded += out.len();
                }
            }
            let rate = coded as f64 / seen.max(1) as f64;
            for i in group {
                if sizes[i] == COPIED_CHUNK {
                    sizes[i] += (differ[i].weights as f64 * rate).round() as u64;
                }
            }
        }
        Ok(sizes)
    }

    /// Estimated bytes of each chunk of bytes, and whether all of them equal the base's.
    fn raw(
        &mut self,
        tensor: &TensorPlan<'_>,
        base: Option<&TensorRef<'_>>,
    ) -> Result<(Vec<u64>, bool), Error> {
        let info = tensor.fine.info();
        let ranges: Vec<_> = chunks(0, info.bytes(), RAW_CHUNK_BYTES).collect();
        let bits = u64::from(info.dtype().bits());
        let element = (bits / 8).max(1) as usize;
        let read = |range: &Range<u64>| -> Result<RawChunk, Error> {
            let mut fine = vec![0; (range.end - range.start) as usize];
            tensor.fine.read_range(range.clone(), &mut fine)?;
            let Some(base) = base else {
                let len = fine.len() as u64;
                return Ok((None, fine, len * 8 / bits));
            };
            let mut bytes = vec![0; fine.len()];
            base.read_range(range.clone(), &mut bytes)?;
            let pairs = bytes.chunks(element).zip(fine.chunks(element));
            let changed = pairs.filter(|(b, f)| b != f).count() as u64;
            Ok((Some(bytes), fine, changed))
        };
        let mut changed = Vec::new();
        for (number, range) in ranges.iter().enumerate() {
            let len = (range.end - range.start) * 8 / bits;
            changed.push(match changed.last() {
                Some(&before) if number % self.every > 0 => len.min(before),
                _ if base.is_none() => len,
                _ => read(range)?.2,
            });
        }
        self.changed += changed.iter().sum::<u64>();
        let differ: Vec<usize> = (0..ranges.len()).filter(|&i| changed[i] > 0).collect();
        let (mut coded, mut seen) = (0, 0);
        for i in evenly(RAW_CHUNKS, differ.len()) {
            let (base, fine, changed) = read(&ranges[differ[i]])?;
            self.coded += fine.len() as u64 * 8 / bits;
            seen += changed;
            coded += raw::encode(base.as_deref(), &fine, element)
                .map_err(Error::io("estimate", tensor.fine.shard().full_path()))?
                .len() as u64;
        }
        let rate = coded as f64 / seen.max(1) as f64;
        let sizes = changed
            .iter()
            .map(|&changed| ((changed as f64 * rate).round() as u64).max(COPIED_CHUNK))
            .collect();
        Ok((sizes, base.is_some() && differ.is_empty()))
    }
}

/// The base's bytes of a chunk, the fine-tune's, and how many elements differ.
type RawChunk = (Option<Vec<u8>>, Vec<u8>, u64);

impl Run {
    fn extend(&mut self, more: &Self) {
        self.fine.extend(&more.fine);
        if let (Some(predicted), Some(more)) = (&mut self.predicted, &more.predicted) {
            predicted.extend(more);
        }
        self.changed += more.changed;
    }
}

fn read_run(
    tensor: &TensorPlan<'_>,
    delta: Option<&DeltaPlan<'_>>,
    range: &Range<u64>,
) -> Result<Run, Error> {
    let len = range.end - range.start;
    let fine = read_words(&tensor.fine, range.start, len)?;
    let (mut changed, mut predicted) = (len, None);
    if let Some(delta) = delta {
        let base = read_cast(&delta.base, range.start, len, tensor.fine.dtype())?;
        changed = count_changed(&base, &fine);
        predicted = Some(delta.predict(range.start, base));
    }
    Ok(Run {
        start: range.start,
        predicted,
        fine,
        changed,
    })
}

/// Estimated bytes of what belongs to no tensor.
fn estimate_gaps(shard: &sparse_checkpoint::Shard) -> Result<u64, Error> {
    let total: u64 = shard.gaps().iter().map(|gap| gap.end - gap.start).sum();
    let mut bytes = Vec::new();
    for gap in shard.gaps() {
        let take = (gap.end - gap.start).min(SAMPLED_BYTES - bytes.len() as u64);
        let at = bytes.len();
        bytes.resize(at + take as usize, 0);
        shard.read_at(shard.data_start() + gap.start, &mut bytes[at..])?;
    }
    if bytes.is_empty() {
        return Ok(0);
    }
    let mut packed = Vec::new();
    raw::pack(bytes.as_slice(), &[], bytes.len() as u64, &mut packed)
        .map_err(Error::io("estimate", shard.full_path()))?;
    Ok((packed.len() as f64 * total as f64 / bytes.len() as f64) as u64)
}

fn estimate_blob(plain: &sparse_checkpoint::PlainFile, base: &Checkpoint) -> Result<Blob, Error> {
    // Large files are sampled from their start.
    let take = plain.size().min(SAMPLED_BYTES);
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
