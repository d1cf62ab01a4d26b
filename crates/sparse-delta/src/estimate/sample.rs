//! What the tensors of a delta would come to: compared with the base, and coded in part.

use std::collections::HashMap;
use std::ops::Range;

use sparse_checkpoint::TensorRef;
use sparse_codec::Scales;

use crate::Error;
use crate::compress::{Encoders, changed_in_rows, count_changed, full, model_bytes};
use crate::digest::{Check, TensorDigest};
use crate::index::{
    BaseTensor, CHUNK_WEIGHTS, Coded, RAW_CHUNK_BYTES, Raw, Source, Tensor, chunk_weights, chunks,
    width,
};
use crate::plan::{DeltaPlan, Kind, Plan, TensorPlan, evenly};
use crate::raw;
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
/// Bytes up to which a tensor is digested.
const HASHED_BYTES: u64 = 1 << 16;

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

/// What was seen of the tensors so far.
pub(super) struct Sample<'a> {
    encoders: Encoders<'a>,
    /// One in so many chunks is compared with the base.
    every: usize,
    /// Weights, those of them that differ from the base's, and those that were coded.
    weights: u64,
    changed: u64,
    coded: u64,
    /// What of `changed` is each tensor's.
    changed_in: Vec<u64>,
    checks: Vec<Check>,
    noise: u64,
    /// By number of the kin, of tensors that are searched for predictions.
    savings: HashMap<usize, Savings>,
}

/// What predictions come to in tensors that are searched for them.
#[derive(Debug, Clone, Copy, Default)]
struct Savings {
    /// Bytes of chunks with predictions and without.
    predicted: u64,
    plain: u64,
    /// Bytes of factors.
    factors: u64,
    /// Tensors, and those of them that have predictions.
    tensors: u64,
    found: u64,
    /// The fit of these.
    fit: usize,
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

impl<'a> Sample<'a> {
    /// Of a fine-tune of so many bytes.
    pub(super) fn new(plan: &'a Plan<'a>, bytes: u64) -> Result<Self, Error> {
        let mut trial = Self::empty(plan, bytes);
        let mut savings: HashMap<usize, Savings> = HashMap::new();
        for tensor in &plan.tensors {
            if let Kind::Delta(delta) = &tensor.kind
                && let Some(kin) = delta.kin.as_ref().filter(|kin| kin.searched)
            {
                trial.compare(tensor, delta, savings.entry(kin.number).or_default())?;
            }
        }
        Ok(Self {
            savings,
            coded: trial.coded,
            ..Self::empty(plan, bytes)
        })
    }

    fn empty(plan: &'a Plan<'a>, bytes: u64) -> Self {
        Self {
            savings: HashMap::new(),
            encoders: Encoders::new(plan),
            every: bytes.div_ceil(COMPARED).max(1) as usize,
            weights: 0,
            changed: 0,
            coded: 0,
            changed_in: Vec::new(),
            checks: Vec::new(),
            noise: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Adds what a prediction comes to in a tensor that was searched for one.
    fn compare(
        &mut self,
        tensor: &TensorPlan<'_>,
        delta: &DeltaPlan<'_>,
        savings: &mut Savings,
    ) -> Result<(), Error> {
        let (chunks, copied) = self.against_base(tensor, delta)?;
        if copied {
            return Ok(());
        }
        let predicted: u64 = chunks.iter().sum();
        savings.predicted += predicted;
        savings.tensors += 1;
        let plain = delta.kin.as_ref().and_then(|kin| kin.plain.clone());
        let Some((fit, scales)) = plain else {
            savings.plain += predicted;
            return Ok(());
        };
        let plain = DeltaPlan {
            base: delta.base,
            common: delta.common,
            layout: delta.layout,
            low_rank: None,
            fit,
            scales,
            kin: None,
        };
        savings.plain += self.against_base(tensor, &plain)?.0.iter().sum::<u64>();
        savings.factors += factor_bytes(delta);
        savings.found += 1;
        savings.fit = delta.fit;
        Ok(())
    }

    /// Weights that were coded.
    pub(super) fn coded(&self) -> u64 {
        self.coded
    }

    /// Share of the weights that equal the base's.
    pub(super) fn unchanged_fraction(&self) -> f64 {
        1.0 - self.changed as f64 / self.weights.max(1) as f64
    }

    /// Bytes that compress as little as a digest.
    pub(super) fn blank<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| {
            self.noise ^= self.noise << 13;
            self.noise ^= self.noise >> 7;
            self.noise ^= self.noise << 17;
            (self.noise >> 32) as u8
        })
    }

    fn base_ref(&mut self, base: &TensorRef<'_>) -> Result<BaseTensor, Error> {
        let Check(digest) = self.check(base)?;
        let mut check = [0; 4];
        check.copy_from_slice(&digest[..4]);
        Ok(BaseTensor {
            name: base.info().name().to_owned(),
            dtype: base.info().dtype(),
            shape: base.info().shape().to_vec(),
            check,
        })
    }

    /// A tensor's check, where it is small: many are equal (biases of zeros, say), and so are their
    /// checks then. Of a larger one blank.
    fn check(&mut self, tensor: &TensorRef<'_>) -> Result<Check, Error> {
        if tensor.byte_len() > HASHED_BYTES {
            return Ok(Check(self.blank()));
        }
        let mut bytes = vec![0; tensor.byte_len() as usize];
        tensor.read_range(0..tensor.byte_len(), &mut bytes)?;
        Ok(TensorDigest::of(&bytes).check())
    }

    /// Estimates the next tensor.
    pub(super) fn tensor(&mut self, tensor: &TensorPlan<'_>) -> Result<Tensor, Error> {
        let info = tensor.fine.info();
        let same = |base: &BaseTensor| base.dtype == info.dtype() && base.shape == info.shape();
        let before = self.changed;
        let source = match &tensor.kind {
            Kind::Alias(number) => {
                self.changed += self.changed_in[*number];
                Source::Alias(0, *number)
            }
            Kind::Raw(base) => {
                let base_ref = base.as_ref().map(|base| self.base_ref(base)).transpose()?;
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
                let base = self.base_ref(&delta.base)?;
                let (mut chunks, copied) = self.against_base(tensor, delta)?;
                if copied && same(&base) {
                    Source::Copy(base)
                } else {
                    let mut model = model_bytes(&tensor.kind).len() as u64;
                    let (mut low_rank, mut tables) = (delta.low_rank.is_some(), delta.fit);
                    let kin = delta.kin.as_ref().filter(|kin| !kin.searched);
                    let saved = kin.and_then(|kin| self.savings.get(&kin.number));
                    if let Some(saved) = saved.filter(|saved| saved.plain > 0) {
                        let share = saved.predicted as f64 / saved.plain as f64;
                        for chunk in &mut chunks {
                            *chunk = (*chunk as f64 * share).round() as u64;
                        }
                        model += saved.factors / saved.tensors;
                        if 2 * saved.found > saved.tensors {
                            (low_rank, tables) = (true, saved.fit);
                        }
                    }
                    chunks.extend(self.without_base(tensor, delta.common)?);
                    Source::Coded(Coded {
                        base: Some(base),
                        shift: delta.layout.shift() as u8,
                        tables,
                        low_rank,
                        model,
                        chunks,
                    })
                }
            }
        };
        self.weights += info.elements();
        self.changed_in.push(self.changed - before);
        let check = match &source {
            // Of one that equals the base's, the base's is known to begin with the same bytes.
            Source::Copy(base) if info.bytes() > HASHED_BYTES => {
                let mut check = self.blank();
                check[..4].copy_from_slice(&base.check);
                Check(check)
            }
            Source::Alias(_, number) => self.checks[*number],
            _ => self.check(&tensor.fine)?,
        };
        self.checks.push(check);
        Ok(Tensor {
            check,
            stored_check: match source.stored() {
                0 => [0; 4],
                _ => self.blank(),
            },
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

/// What the factors of a prediction take.
fn factor_bytes(delta: &DeltaPlan<'_>) -> u64 {
    let mut factors = Vec::new();
    if let Some(low_rank) = &delta.low_rank {
        low_rank.write(&mut factors);
    }
    factors.len() as u64
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
