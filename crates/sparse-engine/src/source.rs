//! Where a model's weights come from.

use std::sync::Arc;

use sparse_checkpoint::{Checkpoint, Dtype, TensorRef};

use crate::Error;
use crate::kernels::panels::{Values, WIDTH, bf16_slot, bf16_to_f32, f16_to_f32};
use crate::linear::{Dense, Linear};

/// In which order a matrix lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// All inputs of an output together, as `torch.nn.Linear` has them.
    OutputsFirst,
    /// All outputs of an input together, as GPT-2's `Conv1D` has them.
    InputsFirst,
}

impl Order {
    /// The shape of a matrix in a file.
    pub fn shape(self, outputs: usize, inputs: usize) -> [usize; 2] {
        match self {
            Order::OutputsFirst => [outputs, inputs],
            Order::InputsFirst => [inputs, outputs],
        }
    }
}

/// Hands out weights by the names that they have in a checkpoint of full precision, so that a
/// model can be loaded from whatever format they are stored in.
pub trait Source: Send + Sync {
    /// Whether there is a tensor with this name.
    fn has(&self, name: &str) -> bool;

    /// A vector: of a norm, a bias.
    ///
    /// # Errors
    /// If it is missing, of another length, or not finite.
    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error>;

    /// The weight matrix of the layer `name`, that is, the tensor `name.weight`.
    ///
    /// # Errors
    /// If it is missing, of another shape, or not finite.
    fn linear(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        order: Order,
    ) -> Result<Arc<dyn Linear>, Error>;
}

/// A type of two bytes that weights may be rounded to, to nearest even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Eleven significant bits, up to 65,504.
    F16,
    /// Eight significant bits, the range of f32.
    Bf16,
}

impl Half {
    fn dtype(self) -> Dtype {
        match self {
            Half::F16 => Dtype::F16,
            Half::Bf16 => Dtype::BF16,
        }
    }
}

/// A checkpoint with weights in F32, BF16 or F16.
#[derive(Debug)]
pub struct Plain<'a> {
    checkpoint: &'a Checkpoint,
    rounded: Option<Half>,
}

/// Bytes of a matrix that are read at a time.
const PIECE: usize = 1 << 20;

impl<'a> Plain<'a> {
    /// Reads from `checkpoint`.
    ///
    /// # Errors
    /// If its `config.json` says that weights are quantized.
    pub fn open(checkpoint: &'a Checkpoint) -> Result<Plain<'a>, Error> {
        let quantization = &checkpoint.config()?["quantization_config"];
        if !quantization.is_null() {
            let method = quantization["quant_method"]
                .as_str()
                .unwrap_or("of unknown method");
            return Err(Error::Quantized {
                path: checkpoint.root().join("config.json"),
                method: method.to_owned(),
            });
        }
        Ok(Plain {
            checkpoint,
            rounded: None,
        })
    }

    /// Rounds matrices as they are read, if they are not of that type already; vectors stay f32.
    pub fn rounded(self, to: Half) -> Plain<'a> {
        Plain {
            rounded: Some(to),
            ..self
        }
    }

    /// Reads what is not quantized of a checkpoint whose quantized layers another source reads.
    pub fn beside_quantized(checkpoint: &'a Checkpoint) -> Plain<'a> {
        Plain {
            checkpoint,
            rounded: None,
        }
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorRef<'a>, Error> {
        let Some(tensor) = self.checkpoint.tensor(name) else {
            return Err(Error::MissingTensor {
                root: self.checkpoint.root().to_path_buf(),
                tensor: name.to_owned(),
            });
        };
        let expected: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        let path = tensor.shard().full_path().to_path_buf();
        let tensor_name = name.to_owned();
        if tensor.shape() != expected {
            return Err(Error::Shape {
                path,
                tensor: tensor_name,
                expected,
                found: tensor.shape().to_vec(),
            });
        }
        match tensor.dtype() {
            Dtype::F32 | Dtype::BF16 | Dtype::F16 => Ok(tensor),
            found => Err(Error::Type {
                path,
                tensor: tensor_name,
                found,
            }),
        }
    }
}

fn not_finite(tensor: TensorRef<'_>) -> Error {
    Error::Weights {
        path: tensor.shard().full_path().to_path_buf(),
        tensor: tensor.name().to_owned(),
    }
}

impl Source for Plain<'_> {
    fn has(&self, name: &str) -> bool {
        self.checkpoint.tensor(name).is_some()
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let tensor = self.tensor(name, &[len])?;
        let mut bytes = vec![0; tensor.byte_len() as usize];
        tensor.read_range(0..tensor.byte_len(), &mut bytes)?;
        let values = widened(tensor.dtype(), &bytes);
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(not_finite(tensor))
        }
    }

    fn linear(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        order: Order,
    ) -> Result<Arc<dyn Linear>, Error> {
        let shape = order.shape(outputs, inputs);
        let name = format!("{name}.weight");
        let tensor = self.tensor(&name, &shape)?;
        let panels = outputs.div_ceil(WIDTH);
        // The type was checked with the tensor, and its shape is one that the file holds.
        let stored = tensor.dtype();
        let dtype = self.rounded.map_or(stored, Half::dtype);
        let Some(mut values) = Values::zeros(dtype, panels, inputs) else {
            return Err(not_finite(tensor));
        };
        let [rows, columns] = shape;
        let row_bytes = columns * (stored.bits() / 8) as usize;
        let together = (PIECE / row_bytes.max(1)).clamp(1, rows.max(1));
        let mut bytes = vec![0; together * row_bytes];
        let mut finite = true;
        for first in (0..rows).step_by(together) {
            let count = together.min(rows - first);
            let bytes = &mut bytes[..count * row_bytes];
            let start = (first * row_bytes) as u64;
            tensor.read_range(start..start + bytes.len() as u64, bytes)?;
            let place = Place {
                first,
                columns,
                inputs,
                order,
            };
            let bf16_is_finite = |bits: u16| bits & 0x7f80 != 0x7f80;
            let f16_is_finite = |bits: u16| bits & 0x7c00 != 0x7c00;
            finite &= match &mut values {
                Values::F32(values) => {
                    let piece = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
                    place.copy(piece, values, |lane| lane, f32::is_finite)
                }
                Values::Bf16(values) if stored == Dtype::BF16 => {
                    place.copy(halves(bytes), values, bf16_slot, bf16_is_finite)
                }
                Values::F16(values) if stored == Dtype::F16 => {
                    place.copy(halves(bytes), values, |lane| lane, f16_is_finite)
                }
                Values::Bf16(values) => {
                    let piece = widened(stored, bytes).into_iter();
                    let piece = piece.map(|value| half::bf16::from_f32(value).to_bits());
                    place.copy(piece, values, bf16_slot, bf16_is_finite)
                }
                Values::F16(values) => {
                    let piece = widened(stored, bytes).into_iter();
                    let piece = piece.map(|value| half::f16::from_f32(value).to_bits());
                    place.copy(piece, values, |lane| lane, f16_is_finite)
                }
            };
        }
        if let (false, Some(to)) = (finite, self.rounded.filter(|_| dtype != stored)) {
            return Err(Error::Range {
                path: tensor.shard().full_path().to_path_buf(),
                tensor: name,
                to: to.dtype(),
            });
        }
        if !finite {
            return Err(not_finite(tensor));
        }
        Ok(Arc::new(Dense::new(values, inputs, outputs)))
    }
}

/// Values of one of the three types, exactly.
fn widened(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect(),
        Dtype::BF16 => halves(bytes).map(bf16_to_f32).collect(),
        _ => halves(bytes).map(f16_to_f32).collect(),
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&pair| u16::from_le_bytes(pair))
}

/// Whole rows of a stored matrix, on their way into panels.
struct Place {
    first: usize,
    columns: usize,
    inputs: usize,
    order: Order,
}

impl Place {
    /// Puts values in place; whether all were finite.
    fn copy<T: Copy>(
        &self,
        piece: impl Iterator<Item = T>,
        panels: &mut [T],
        slot: impl Fn(usize) -> usize,
        finite: impl Fn(T) -> bool,
    ) -> bool {
        let (mut row, mut column, mut all) = (self.first, 0, true);
        for value in piece {
            let (output, input) = match self.order {
                Order::OutputsFirst => (row, column),
                Order::InputsFirst => (column, row),
            };
            let group = output / WIDTH * self.inputs + input;
            panels[group * WIDTH + slot(output % WIDTH)] = value;
            all &= finite(value);
            column += 1;
            if column == self.columns {
                (row, column) = (row + 1, 0);
            }
        }
        all
    }
}
