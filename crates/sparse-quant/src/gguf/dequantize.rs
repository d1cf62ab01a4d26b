//! From a GGUF file back to a plain checkpoint, under the names that the Hugging Face ecosystem has.

use std::path::Path;

use sparse_checkpoint::{Dtype, OutputDir, TensorSpec, WriteOptions, write_shards};

use super::model::Model;
use super::names::restore;
use super::plan::SLOWED;
use super::read::GgufFile;
use crate::format::damaged;
use crate::quantize::Options;
use crate::weights::from_f32;
use crate::{Error, Progress, carry};

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
        if tensor.name == SLOWED {
            // The configuration says it too.
            continue;
        }
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
            let weights = if model.turned(&spec.name) {
                weights.transposed()
            } else {
                weights
            };
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
