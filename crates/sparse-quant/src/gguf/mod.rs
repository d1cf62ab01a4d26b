//! llama.cpp's file: one GGUF with weights, hyperparameters and tokenizer.
//!
//! `plan` decides from configuration, tokenizer and headers what the file holds, `container` knows its
//! bytes, [`read`](GgufFile) reads any such file back.

mod container;
mod dequantize;
mod metadata;
mod model;
mod names;
mod plan;
mod read;
mod source;
mod tokenizer;
mod write;

pub use container::Value;
pub use dequantize::dequantize_gguf;
pub use read::{GgufFile, GgufTensor};
pub use source::GgufSource;

pub(crate) use plan::{FILE, GgufPlan};
pub(crate) use write::write;

use crate::method::ggml::GgmlType;

/// The GGUF file that a path stands for: the file itself, or the one in a folder that
/// `sparse quantize` made.
pub fn find(path: &std::path::Path) -> Option<std::path::PathBuf> {
    let within = path.join(FILE);
    let named = path
        .extension()
        .is_some_and(|extension| extension == "gguf");
    if named && path.is_file() {
        Some(path.to_owned())
    } else {
        within.is_file().then_some(within)
    }
}

/// A mixture of types, as llama.cpp names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(non_camel_case_types, missing_docs)] // llama.cpp's own names
pub enum FileType {
    Q4_0,
    Q8_0,
    Q4_K_M,
    Q6_K,
}

impl FileType {
    /// The number that stands for it in a file.
    fn id(self) -> u32 {
        match self {
            FileType::Q4_0 => 2,
            FileType::Q8_0 => 7,
            FileType::Q4_K_M => 15,
            FileType::Q6_K => 18,
        }
    }

    /// The type that most tensors have.
    fn main(self) -> GgmlType {
        match self {
            FileType::Q4_0 => GgmlType::Q4_0,
            FileType::Q8_0 => GgmlType::Q8_0,
            FileType::Q4_K_M => GgmlType::Q4_K,
            FileType::Q6_K => GgmlType::Q6_K,
        }
    }
}

/// What decides each tensor's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mixture {
    pub file_type: FileType,
    /// Whether there is an importance matrix.
    pub weighted: bool,
}

impl Mixture {
    /// The type of a tensor of block `block` of `blocks`, before rows that do not fit; the choices
    /// are those of llama.cpp's `llama_tensor_get_type`.
    fn of(self, role: names::Role, block: usize, blocks: usize) -> GgmlType {
        use names::Role;
        let file_type = self.file_type;
        // The first and last eighth, and every third block between.
        let more = || {
            let eighth = blocks / 8;
            block < eighth || block >= 7 * blocks / 8 || (block - eighth) % 3 == 2
        };
        match role {
            Role::Output if file_type != FileType::Q8_0 => GgmlType::Q6_K,
            Role::Values | Role::Down if file_type == FileType::Q4_K_M && more() => GgmlType::Q6_K,
            Role::Down if file_type == FileType::Q4_0 && self.weighted && block < blocks / 8 => {
                GgmlType::Q4_1
            }
            _ => file_type.main(),
        }
    }
}

#[cfg(test)]
mod tests;
