//! From a GGUF file back to a plain checkpoint, under the names that the Hugging Face ecosystem has.

use std::path::Path;

use sparse_checkpoint::{Dtype, OutputDir, TensorSpec, WriteOptions, write_shards};

use super::names::{Rows, restore};
use super::read::{GgufFile, GgufTensor};
use crate::format::damaged;
use crate::quantize::Options;
use crate::weights::from_f32;
use crate::{Architecture, Error, Matrix, Progress, carry};

/// Writes the tensors of a GGUF file to the folder `output` as a plain checkpoint of f32; what lies
/// beside the file (configuration, tokenizer) is taken along. Returns the number of tensors.
///
/// # Errors
/// If the file is damaged or of another architecture than GPT-2, Llama, Qwen or GPT-NeoX, or the
/// output exists or cannot be written.
pub fn dequantize_gguf(
    file: &Path,
    output: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<usize, Error> {
    let gguf = GgufFile::open(file)?;
    let model = Model::of(&gguf, file)?;
    let mut specs = Vec::new();
    let mut sources = Vec::new();
    for tensor in gguf.tensors() {
        let Some(name) = restore(model.architecture, &tensor.name) else {
            let reason = "it is not known what this tensor is".to_owned();
            return Err(damaged(file, &tensor.name, reason));
        };
        let (rows, cols) = (tensor.rows as u64, tensor.cols as u64);
        let turned = model.turned(&name);
        let shape = match (tensor.rows, turned) {
            (1, _) => vec![cols],
            (_, true) => vec![cols, rows],
            (_, false) => vec![rows, cols],
        };
        specs.push(TensorSpec::new(name, Dtype::F32, shape));
        sources.push(tensor);
    }
    let folder = OutputDir::create(output, options.existing)?;
    let write = WriteOptions {
        max_shard_bytes: Some(options.max_shard_bytes),
        ..WriteOptions::default()
    };
    let (mut done, total) = (0, specs.len() as u64);
    crate::pool::with_threads(options.threads, || {
        write_shards(folder.path(), &specs, &write, |spec, out| {
            if progress.cancelled() {
                return Err(Error::Interrupted);
            }
            progress.step("dequantize", done, total);
            done += 1;
            let at = specs
                .iter()
                .position(|other| other.name == spec.name)
                .unwrap_or(0);
            let weights = model.weights(&gguf, sources[at], &spec.name)?;
            out.write_all(&from_f32(Dtype::F32, weights.data()).unwrap_or_default())?;
            Ok(())
        })
    })?;
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        let beside = file.with_file_name(name);
        if beside.is_file() {
            let bytes = std::fs::read(&beside).map_err(Error::io("read", &beside))?;
            carry::put(folder.path(), name, &bytes)?;
        }
    }
    folder.commit()?;
    Ok(specs.len())
}

/// What of a model's shape says how its rows moved.
struct Model {
    architecture: Architecture,
    interleaved: bool,
    heads: usize,
    shared_heads: usize,
}

impl Model {
    fn of(gguf: &GgufFile, path: &Path) -> Result<Model, Error> {
        let arch = match gguf.value("general.architecture") {
            Some(super::Value::Text(arch)) => arch.as_str(),
            _ => "",
        };
        let architecture = match arch {
            "gpt2" => Architecture::Gpt2,
            "llama" | "qwen2" | "qwen3" => Architecture::Llama,
            "gptneox" => Architecture::GptNeoX,
            other => {
                let reason = format!("{other:?} is not a known one");
                return Err(damaged(path, "architecture", reason));
            }
        };
        let number = |key: &str| match gguf.value(&format!("{arch}.{key}")) {
            Some(super::Value::Unsigned(number)) => usize::try_from(*number).ok(),
            _ => None,
        };
        let heads = number("attention.head_count")
            .filter(|heads| *heads > 0)
            .unwrap_or(1);
        let shared = number("attention.head_count_kv").filter(|heads| *heads > 0);
        Ok(Model {
            architecture,
            interleaved: arch == "llama",
            heads,
            shared_heads: shared.unwrap_or(heads),
        })
    }

    /// Whether the checkpoint stores this tensor inputs first.
    fn turned(&self, name: &str) -> bool {
        self.architecture.transposed() && self.architecture.layer(name).is_some()
    }

    fn weights(&self, gguf: &GgufFile, tensor: &GgufTensor, name: &str) -> Result<Matrix, Error> {
        let stored = gguf.weights(&tensor.name)?;
        let vector = stored.rows() == 1;
        let (rows, cols) = if vector {
            (stored.cols(), 1)
        } else {
            (stored.rows(), stored.cols())
        };
        let stored = Matrix::new(rows, cols, stored.into_data()).unwrap_or(Matrix::zeros(0, 0));
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
            _ => Rows::Kept,
        };
        let back = match moved {
            Rows::Kept => stored,
            moved if rows.is_multiple_of(6 * self.heads) || rows.is_multiple_of(2 * self.heads) => {
                let mut back = Matrix::zeros(rows, cols);
                for row in 0..rows {
                    back.row_mut(moved.source(row, rows))
                        .copy_from_slice(stored.row(row));
                }
                back
            }
            _ => stored,
        };
        Ok(if self.turned(name) {
            back.transposed()
        } else {
            back
        })
    }
}
