//! What of a file's hyperparameters says how its tensors differ from a checkpoint's.

use std::path::Path;

use super::Value;
use super::names::{Rows, rename};
use super::read::{GgufFile, GgufTensor};
use crate::format::damaged;
use crate::{Architecture, Error, Matrix};

/// How a file's tensors become a checkpoint's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    pub architecture: Architecture,
    interleaved: bool,
    heads: usize,
    shared_heads: usize,
}

impl Model {
    /// # Errors
    /// If the file is of another architecture than GPT-2, Llama, Qwen or GPT-NeoX.
    pub fn of(gguf: &GgufFile, path: &Path) -> Result<Model, Error> {
        let arch = match gguf.value("general.architecture") {
            Some(Value::Text(arch)) => arch.as_str(),
            _ => "",
        };
        let architecture = match arch {
            "gpt2" => Architecture::Gpt2,
            "llama" | "qwen2" | "qwen3" | "smollm3" => Architecture::Llama,
            "gptneox" => Architecture::GptNeoX,
            other => {
                let reason = format!("{other:?} is not a known one");
                return Err(damaged(path, "architecture", reason));
            }
        };
        let number = |key: &str| match gguf.value(&format!("{arch}.{key}")) {
            Some(Value::Unsigned(number)) => usize::try_from(*number).ok(),
            _ => None,
        };
        let heads = number("attention.head_count")
            .filter(|heads| *heads > 0)
            .unwrap_or(1);
        let shared = number("attention.head_count_kv").filter(|heads| *heads > 0);
        Ok(Model {
            architecture,
            interleaved: matches!(arch, "llama" | "smollm3"),
            heads,
            shared_heads: shared.unwrap_or(heads),
        })
    }

    /// The file's tensor that becomes `name`.
    pub fn tensor<'a>(&self, gguf: &'a GgufFile, name: &str) -> Option<&'a GgufTensor> {
        let (renamed, ..) = rename(self.architecture, name)?;
        gguf.tensors().iter().find(|tensor| tensor.name == renamed)
    }

    /// Whether the checkpoint stores this tensor inputs first.
    pub fn turned(&self, name: &str) -> bool {
        self.architecture.transposed() && self.architecture.layer(name).is_some()
    }

    /// For each of `count` rows of the tensor `name`, or numbers of a bias, the row of the file
    /// that it is; `None` where all are where they were.
    pub fn order(&self, name: &str, count: usize) -> Option<Vec<usize>> {
        let moved = match self.architecture {
            Architecture::Llama if self.interleaved && name.contains(".q_proj.") => {
                Rows::Interleaved { heads: self.heads }
            }
            Architecture::Llama if self.interleaved && name.contains(".k_proj.") => {
                Rows::Interleaved {
                    heads: self.shared_heads,
                }
            }
            Architecture::GptNeoX if name.contains(".query_key_value.") => {
                Rows::Grouped { heads: self.heads }
            }
            _ => return None,
        };
        let whole = match moved {
            Rows::Kept => 1,
            Rows::Interleaved { heads } => 2 * heads,
            Rows::Grouped { heads } => 3 * heads,
        };
        if !count.is_multiple_of(whole) {
            return None;
        }
        let mut order = vec![0; count];
        for row in 0..count {
            order[moved.source(row, count)] = row;
        }
        Some(order)
    }

    /// The numbers of the tensor `name`, as the checkpoint has them but outputs first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn weights(
        &self,
        gguf: &GgufFile,
        tensor: &GgufTensor,
        name: &str,
    ) -> Result<Matrix, Error> {
        let stored = gguf.weights(&tensor.name)?;
        let (rows, cols) = match stored.rows() {
            1 => (stored.cols(), 1),
            rows => (rows, stored.cols()),
        };
        let stored = Matrix::new(rows, cols, stored.into_data()).unwrap_or(Matrix::zeros(0, 0));
        let Some(order) = self.order(name, rows) else {
            return Ok(stored);
        };
        let mut back = Matrix::zeros(rows, cols);
        for (row, from) in order.into_iter().enumerate() {
            back.row_mut(row).copy_from_slice(stored.row(from));
        }
        Ok(back)
    }
}
