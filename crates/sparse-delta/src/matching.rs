//! Which tensor of the base each tensor of the fine-tune comes from.

use std::collections::BTreeMap;

use sparse_checkpoint::{Checkpoint, Dtype, TensorRef};

use crate::Error;
use crate::index::common_weights;
use crate::words::{Words, cast, castable, layout};

/// Weights compared to judge how alike two tensors are.
const SAMPLE: u64 = 256;
/// Mean |difference| / mean |weight| above which two tensors are strangers.
const STRANGERS: f32 = 0.5;

/// Finds a base tensor for each tensor of `fine`, in the order of [`Checkpoint::tensors`].
///
/// A tensor of the same name is taken where its rows fit and its weights are alike; otherwise the
/// most similar tensor of the same shape, as when a wrapper added a prefix to every name.
pub(crate) fn match_tensors<'b>(
    base: &'b Checkpoint,
    fine: &Checkpoint,
) -> Result<Vec<Option<TensorRef<'b>>>, Error> {
    let mut by_shape: BTreeMap<&[u64], Vec<TensorRef<'b>>> = BTreeMap::new();
    // Where two shards have a tensor of the same name, only one of them can be referred to.
    let reachable = |tensor: &TensorRef<'_>| {
        base.tensor(tensor.name())
            .is_some_and(|found| std::ptr::eq(found.info(), tensor.info()))
    };
    for tensor in base.tensors().filter(reachable) {
        by_shape
            .entry(tensor.info().shape())
            .or_default()
            .push(tensor);
    }
    fine.tensors()
        .map(|tensor| {
            let info = tensor.info();
            let named = base.tensor(info.name()).filter(|b| fits(b, &tensor));
            if let Some(named) = named
                && (layout(info.dtype()).is_none() || distance(&named, &tensor)? < STRANGERS)
            {
                return Ok(Some(named));
            }
            let mut best: Option<(f32, TensorRef<'b>)> = None;
            for candidate in by_shape.get(info.shape()).into_iter().flatten() {
                if !fits(candidate, &tensor) {
                    continue;
                }
                let distance = distance(candidate, &tensor)?;
                if distance < STRANGERS && best.as_ref().is_none_or(|b| distance < b.0) {
                    best = Some((distance, *candidate));
                }
            }
            Ok(best.map(|b| b.1).or(named))
        })
        .collect()
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
    let common = common_weights(base.info().shape(), fine.info().shape()).unwrap_or(0);
    let runs = 8;
    let len = (SAMPLE / runs).min(common);
    let (mut moved, mut size, mut equal) = (0f32, 0f32, true);
    for run in 0..runs {
        let start = (common - len) * run / (runs - 1);
        let b = values(base, start, len)?;
        let f = values(fine, start, len)?;
        equal &= base.info().dtype() == fine.info().dtype() && b.1 == f.1;
        for (b, f) in b.0.iter().zip(&f.0) {
            moved += (b - f).abs();
            size += b.abs().max(f.abs());
        }
    }
    if equal {
        return Ok(0.0);
    }
    let ratio = moved / size;
    Ok(if ratio.is_nan() { 1.0 } else { ratio })
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
