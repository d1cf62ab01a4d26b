//! What is stored for a quantized layer, format by format: the tensors' names, types and bytes, and
//! the way back.

use std::path::Path;

use half::f16;
use sparse_checkpoint::{Checkpoint, Dtype, TensorRef, TensorSpec};

use crate::Error;
use crate::weights::to_f32;

pub mod awq;
pub mod bnb4;
pub mod bnb8;
pub mod compressed;
pub mod gptq;
pub mod hqq;
pub mod quanto;

/// A tensor with the bytes that are to be written for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Name, type and shape.
    pub spec: TensorSpec,
    /// Its little-endian bytes.
    pub bytes: Vec<u8>,
}

/// Numbers as little-endian bytes.
pub(crate) fn le_bytes<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    // Every machine that this is built for is little-endian.
    const { assert!(cfg!(target_endian = "little")) };
    bytemuck::cast_slice(values).to_vec()
}

/// The name that torch has for a type.
pub(crate) fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::BF16 => "bfloat16",
        Dtype::F16 => "float16",
        _ => "float32",
    }
}

/// Numbers as half-precision bytes; they were rounded to that type when they were chosen.
pub(crate) fn f16_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|&value| f16::from_f32(value).to_le_bytes())
        .collect()
}

/// Reads the tensors of one quantized layer, each checked against the type and shape it must have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerReader<'a> {
    checkpoint: &'a Checkpoint,
    layer: &'a str,
}

impl<'a> LayerReader<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint, layer: &'a str) -> LayerReader<'a> {
        LayerReader { checkpoint, layer }
    }

    /// The tensor `layer.suffix`.
    pub(crate) fn tensor(&self, suffix: &str) -> Result<TensorRef<'a>, Error> {
        let name = format!("{}.{suffix}", self.layer);
        self.checkpoint
            .tensor(&name)
            .ok_or_else(|| self.damaged(format!("tensor {suffix} is missing")))
    }

    /// Whether the tensor `layer.suffix` is there.
    pub(crate) fn has(&self, suffix: &str) -> bool {
        self.checkpoint
            .tensor(&format!("{}.{suffix}", self.layer))
            .is_some()
    }

    /// The bytes of `layer.suffix`, which must have this type and number of elements.
    pub(crate) fn bytes(
        &self,
        suffix: &str,
        dtype: Dtype,
        elements: usize,
    ) -> Result<Vec<u8>, Error> {
        let tensor = self.tensor(suffix)?;
        if tensor.dtype() != dtype || tensor.elements() != elements as u64 {
            return Err(self.damaged(format!(
                "{suffix} should be {elements} of {dtype}, found {} of {}",
                tensor.elements(),
                tensor.dtype()
            )));
        }
        read_all(tensor)
    }

    /// The elements of `layer.suffix`, which must have this type and number of elements.
    pub(crate) fn values<T: bytemuck::AnyBitPattern>(
        &self,
        suffix: &str,
        dtype: Dtype,
        elements: usize,
    ) -> Result<Vec<T>, Error> {
        let bytes = self.bytes(suffix, dtype, elements)?;
        Ok(bytes
            .chunks_exact(size_of::<T>())
            .map(bytemuck::pod_read_unaligned)
            .collect())
    }

    /// The numbers of `layer.suffix`, of which there must be so many: in half precision as the
    /// format has it, or in bfloat16 or single precision, which gptqmodel leaves in models of those
    /// types.
    pub(crate) fn floats(&self, suffix: &str, elements: usize) -> Result<Vec<f32>, Error> {
        let dtype = match self.tensor(suffix)?.dtype() {
            other @ (Dtype::BF16 | Dtype::F32) => other,
            _ => Dtype::F16,
        };
        let bytes = self.bytes(suffix, dtype, elements)?;
        to_f32(dtype, &bytes).ok_or_else(|| self.damaged(format!("{suffix} is of {dtype}")))
    }

    pub(crate) fn damaged(&self, reason: String) -> Error {
        damaged(self.checkpoint.root(), self.layer, reason)
    }
}

pub(crate) fn read_all(tensor: TensorRef<'_>) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; tensor.byte_len() as usize]; // at most the file
    tensor.read_range(0..tensor.byte_len(), &mut bytes)?;
    Ok(bytes)
}

pub(crate) fn damaged(path: &Path, part: &str, reason: String) -> Error {
    Error::Damaged {
        path: path.to_owned(),
        part: part.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests;
