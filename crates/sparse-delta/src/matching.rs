//! Which tensor of the base each tensor of the fine-tune comes from.

use std::collections::HashMap;

use sparse_checkpoint::{Checkpoint, Dtype, TensorRef};

use crate::Error;
use crate::index::common_weights;
use crate::progress::{Progress, step};
use crate::words::{Words, cast, castable, layout};

/// Weights compared to judge how alike two tensors are, in so many runs.
const SAMPLE: u64 = 256;
const RUNS: u64 = 8;
/// Mean |difference| / mean |weight| above which two tensors are strangers.
const STRANGERS: f32 = 0.5;
/// Tensors of the same shape that are looked at beside those with the nearest names.
const CANDIDATES: usize = 512;
/// Of those with other numbers of rows, which are read for each comparison.
const GROWN_CANDIDATES: usize = 16;

/// Finds a base tensor for each tensor of `fine`, in the order of [`Checkpoint::tensors`].
///
/// A tensor of the same name is taken where its rows fit and its weights are alike; otherwise the
/// most similar tensor of the same shape, as when a wrapper added a prefix to every name; otherwise
/// one with more or fewer rows.
pub(crate) fn match_tensors<'b>(
    base: &'b Checkpoint,
    fine: &Checkpoint,
    progress: &dyn Progress,
) -> Result<Vec<Option<TensorRef<'b>>>, Error> {
    let mut candidates = Candidates::of(base);
    fine.tensors()
        .map(|tensor| {
            step(progress, 0)?;
            let info = tensor.info();
            // There is nothing to refer to, and nothing to compare with thousands of others.
            if info.bytes() == 0 && layout(info.dtype()).is_some() {
                return Ok(None);
            }
            let named = base.tensor(info.name()).filter(|b| fits(b, &tensor));
            if let Some(named) = named
                && (layout(info.dtype()).is_none() || distance(&named, &tensor)? < STRANGERS)
            {
                return Ok(Some(named));
            }
            Ok(candidates.nearest(&tensor)?.or(named))
        })
        .collect()
}

/// The tensors of a base, to be found under other names.
struct Candidates<'b> {
    /// By shape, in order of their names read backwards: neighbours have the longest ends in
    /// common.
    by_shape: HashMap<Vec<u64>, Vec<Candidate<'b>>>,
    /// The shapes with the same rows.
    by_row: HashMap<Vec<u64>, Vec<Vec<u64>>>,
}

struct Candidate<'b> {
    tensor: TensorRef<'b>,
    backwards: Vec<u8>,
    /// Read when it is first compared.
    sample: Option<Sample>,
}

fn backwards(name: &str) -> Vec<u8> {
    name.bytes().rev().collect()
}

impl<'b> Candidates<'b> {
    fn of(base: &'b Checkpoint) -> Self {
        let mut by_shape: HashMap<Vec<u64>, Vec<Candidate<'b>>> = HashMap::new();
        // Where two shards have a tensor of the same name, only one of them can be referred to.
        let reachable = |tensor: &TensorRef<'_>| {
            base.tensor(tensor.name())
                .is_some_and(|found| std::ptr::eq(found.info(), tensor.info()))
        };
        for tensor in base.tensors().filter(reachable) {
            by_shape
                .entry(tensor.info().shape().to_vec())
                .or_default()
                .push(Candidate {
                    tensor,
                    backwards: backwards(tensor.name()),
                    sample: None,
                });
        }
        let mut by_row: HashMap<Vec<u64>, Vec<Vec<u64>>> = HashMap::new();
        for (shape, group) in &mut by_shape {
            group.sort_by(|a, b| a.backwards.cmp(&b.backwards));
            // Vectors of other lengths have nothing to tell them from strangers.
            if let [_, row @ ..] = shape.as_slice()
                && !row.is_empty()
            {
                by_row.entry(row.to_vec()).or_default().push(shape.clone());
            }
        }
        by_row.values_mut().for_each(|shapes| shapes.sort());
        Self { by_shape, by_row }
    }

    /// The most similar tensor of another name, unless all are strangers.
    fn nearest(&mut self, fine: &TensorRef<'_>) -> Result<Option<TensorRef<'b>>, Error> {
        let name = backwards(fine.name());
        let mut best: Option<(f32, TensorRef<'b>)> = None;
        if let Some(group) = self.by_shape.get_mut(fine.info().shape()) {
            let own = Sample::of(fine, fine.info().shape())?;
            for at in around(group, &name, CANDIDATES) {
                let candidate = &mut group[at];
                if !fits(&candidate.tensor, fine) {
                    continue;
                }
                if candidate.sample.is_none() {
                    candidate.sample = Some(Sample::of(&candidate.tensor, fine.info().shape())?);
                }
                let Some(sample) = &candidate.sample else {
                    continue;
                };
                let distance = sample.distance(&own);
                if distance < best.as_ref().map_or(STRANGERS, |best| best.0) {
                    best = Some((distance, candidate.tensor));
                }
                if distance == 0.0 {
                    break;
                }
            }
        }
        if best.is_some() {
            return Ok(best.map(|best| best.1));
        }
        let shapes = match fine.info().shape() {
            [_, row @ ..] if !row.is_empty() => self.by_row.get(row),
            _ => None,
        };
        for shape in shapes.into_iter().flatten() {
            let Some(group) = self
                .by_shape
                .get(shape)
                .filter(|_| shape != fine.info().shape())
            else {
                continue;
            };
            for at in around(group, &name, GROWN_CANDIDATES) {
                let candidate = group[at].tensor;
                if !fits(&candidate, fine) {
                    continue;
                }
                let distance = distance(&candidate, fine)?;
                if distance < best.as_ref().map_or(STRANGERS, |best| best.0) {
                    best = Some((distance, candidate));
                }
            }
        }
        Ok(best.map(|best| best.1))
    }
}

/// The places of so many candidates around a name, the nearest first.
fn around(
    group: &[Candidate<'_>],
    backwards: &[u8],
    most: usize,
) -> impl Iterator<Item = usize> + use<> {
    let middle = group.partition_point(|candidate| *candidate.backwards < *backwards);
    let after = middle..group.len().min(middle + most / 2);
    let before = middle.saturating_sub(most / 2)..middle;
    let both = after.len().max(before.len());
    (0..both).flat_map(move |step| {
        let after = (middle + step < after.end).then_some(middle + step);
        let before = (middle - before.start > step).then(|| middle - step - 1);
        [after, before].into_iter().flatten()
    })
}

fn fits(base: &TensorRef<'_>, fine: &TensorRef<'_>) -> bool {
    let (base, fine) = (base.info(), fine.info());
    match layout(fine.dtype()) {
        Some(_) => {
            castable(base.dtype(), fine.dtype())
                && common_weights(base.shape(), fine.shape()).is_some_and(|n| n > 0)
        }
        None => base.dtype() == fine.dtype() && base.shape() == fine.shape(),
    }
}

/// Mean |difference| over mean |weight|, on evenly spaced runs; 0 for equal bytes.
fn distance(base: &TensorRef<'_>, fine: &TensorRef<'_>) -> Result<f32, Error> {
    let (base_shape, fine_shape) = (base.info().shape(), fine.info().shape());
    let base = Sample::of(base, fine_shape)?;
    Ok(base.distance(&Sample::of(fine, base_shape)?))
}

/// Evenly spaced runs of weights.
struct Sample {
    dtype: Dtype,
    values: Vec<f32>,
    bytes: Vec<u8>,
}

impl Sample {
    /// Samples what the tensor has in common with one of another shape.
    fn of(tensor: &TensorRef<'_>, other: &[u64]) -> Result<Self, Error> {
        let common = common_weights(tensor.info().shape(), other).unwrap_or(0);
        let len = (SAMPLE / RUNS).min(common);
        let mut sample = Self {
            dtype: tensor.info().dtype(),
            values: Vec::new(),
            bytes: Vec::new(),
        };
        for run in 0..RUNS {
            let start = (common - len) * run / (RUNS - 1);
            let (values, bytes) = values(tensor, start, len)?;
            sample.values.extend(values);
            sample.bytes.extend(bytes);
        }
        Ok(sample)
    }

    fn distance(&self, other: &Self) -> f32 {
        if self.dtype == other.dtype && self.bytes == other.bytes {
            return 0.0;
        }
        let (mut moved, mut size) = (0f32, 0f32);
        for (a, b) in self.values.iter().zip(&other.values) {
            moved += (a - b).abs();
            size += a.abs().max(b.abs());
        }
        let ratio = moved / size;
        if ratio.is_nan() { 1.0 } else { ratio }
    }
}

/// Weights as numbers, and as bytes.
fn values(tensor: &TensorRef<'_>, start: u64, len: u64) -> Result<(Vec<f32>, Vec<u8>), Error> {
    let dtype = tensor.info().dtype();
    let bits = u64::from(dtype.bits());
    let mut bytes = vec![0; ((start + len) * bits / 8 - start * bits / 8) as usize];
    tensor.read_range(start * bits / 8..(start + len) * bits / 8, &mut bytes)?;
    let values = match dtype {
        Dtype::BF16 | Dtype::F16 | Dtype::F32 => {
            let mut words = Words::zeros(dtype.bits() as usize / 8, len as usize);
            words.bytes_mut().copy_from_slice(&bytes);
            match cast(words, dtype, Dtype::F32) {
                Words::W32(words) => words.iter().map(|&w| f32::from_bits(w)).collect(),
                _ => Vec::new(),
            }
        }
        _ => bytes.iter().map(|&b| f32::from(b)).collect(),
    };
    Ok((values, bytes))
}
