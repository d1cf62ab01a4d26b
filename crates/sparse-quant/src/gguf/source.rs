//! A GGUF file as a source of weights for the engine.

use std::path::Path;
use std::sync::Arc;

use sparse_engine::{
    Activations, Coded, CodedMatrix, CodedWeights, Dense, Error as EngineError, GroupNumbers,
    GroupOffsets, Linear, Order, Source,
};

use super::model::Model;
use super::read::{GgufFile, GgufTensor};
use crate::Error;
use crate::method::ggml::{BlockCodes, BlockOffsets, Numbers, codes};

/// A GGUF file whose tensors the engine runs as they are stored.
#[derive(Debug)]
pub struct GgufSource {
    gguf: GgufFile,
    model: Model,
    activations: Activations,
}

impl GgufSource {
    /// Opens a file.
    ///
    /// # Errors
    /// If it is damaged, or of another architecture than GPT-2, Llama, Qwen or GPT-NeoX.
    pub fn open(path: &Path, activations: Activations) -> Result<GgufSource, Error> {
        let gguf = GgufFile::open(path)?;
        let model = Model::of(&gguf, path)?;
        Ok(GgufSource {
            gguf,
            model,
            activations,
        })
    }

    fn tensor(&self, name: &str) -> Result<&GgufTensor, EngineError> {
        let found = self.model.tensor(&self.gguf, name);
        found.ok_or_else(|| EngineError::MissingTensor {
            root: self.gguf.path().to_owned(),
            tensor: name.to_owned(),
        })
    }

    /// Rows of blocks, where the checkpoint has them.
    fn rows(&self, tensor: &GgufTensor, name: &str) -> Result<Vec<u8>, Error> {
        let (_, bytes) = self.gguf.bytes(&tensor.name)?;
        let Some(order) = self.model.order(name, tensor.rows) else {
            return Ok(bytes);
        };
        let width = tensor.kind.row_bytes(tensor.cols);
        let rows = order.into_iter().map(|row| &bytes[row * width..][..width]);
        Ok(rows.flatten().copied().collect())
    }
}

fn packed(layer: &str, error: impl ToString) -> EngineError {
    EngineError::Packed {
        layer: layer.to_owned(),
        message: error.to_string(),
    }
}

impl Source for GgufSource {
    fn has(&self, name: &str) -> bool {
        self.model.tensor(&self.gguf, name).is_some()
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        let tensor = self.tensor(name)?;
        if (tensor.rows, tensor.cols) != (1, len) {
            return Err(EngineError::Shape {
                path: self.gguf.path().to_owned(),
                tensor: name.to_owned(),
                expected: vec![len as u64],
                found: vec![tensor.rows as u64, tensor.cols as u64],
            });
        }
        let weights = self.model.weights(&self.gguf, tensor, name);
        let values = weights.map_err(|error| packed(name, error))?.into_data();
        finite(&values, name)?;
        Ok(values)
    }

    fn linear(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        _order: Order,
    ) -> Result<Arc<dyn Linear>, EngineError> {
        // Whatever the checkpoint's order is, a GGUF file has outputs first.
        let weight = format!("{name}.weight");
        let tensor = self.tensor(&weight)?;
        if (tensor.rows, tensor.cols) != (outputs, inputs) {
            return Err(EngineError::Shape {
                path: self.gguf.path().to_owned(),
                tensor: weight,
                expected: vec![outputs as u64, inputs as u64],
                found: vec![tensor.rows as u64, tensor.cols as u64],
            });
        }
        let rows = self
            .rows(tensor, &weight)
            .map_err(|error| packed(name, error))?;
        let Some(codes) = codes(&rows, tensor.kind) else {
            let weights = self.model.weights(&self.gguf, tensor, &weight);
            let weights = weights.map_err(|error| packed(name, error))?;
            finite(weights.data(), name)?;
            return Ok(Arc::new(Dense::from_f32(weights.data(), inputs)));
        };
        finite(&codes.scales.coarse, name)?;
        if let BlockOffsets::Values(offsets) = &codes.offsets {
            finite(&offsets.coarse, name)?;
        }
        let coded = coded(&codes, outputs, inputs, self.activations);
        let coded = coded.ok_or_else(|| packed(name, "its groups are no whole blocks"))?;
        Ok(Arc::new(coded))
    }
}

fn finite(values: &[f32], name: &str) -> Result<(), EngineError> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    Err(packed(name, "it holds NaN or infinity"))
}

fn coded(
    codes: &BlockCodes,
    outputs: usize,
    inputs: usize,
    activations: Activations,
) -> Option<Coded> {
    let unsigned: Vec<u8>;
    let weights = if codes.bits == 4 {
        unsigned = codes.codes.iter().map(|&code| code as u8).collect();
        CodedWeights::Unsigned4(&unsigned)
    } else {
        CodedWeights::Signed8(&codes.codes)
    };
    let offsets = match &codes.offsets {
        BlockOffsets::None => GroupOffsets::None,
        BlockOffsets::Zero(zero) => GroupOffsets::Zero(*zero),
        BlockOffsets::Values(values) => GroupOffsets::Values(numbers(values)),
    };
    let matrix = CodedMatrix {
        outputs,
        inputs,
        group: codes.group,
        codes: weights,
        scales: numbers(&codes.scales),
        offsets,
        order: None,
    };
    Coded::new(matrix, activations)
}

fn numbers(numbers: &Numbers) -> GroupNumbers<'_> {
    if numbers.span == 1 {
        return GroupNumbers::Plain(&numbers.coarse);
    }
    GroupNumbers::Nested {
        fine: &numbers.fine,
        coarse: &numbers.coarse,
        span: numbers.span,
    }
}
