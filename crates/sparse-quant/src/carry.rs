//! What a quantized checkpoint takes over from the original: tensors that are not layers, the
//! configuration, tokenizer files.

use std::fs;
use std::path::Path;

use serde_json::Value;
use sparse_checkpoint::{Checkpoint, PlainFile, TensorWriter};

use crate::Error;
use crate::format::{quanto, torch_name};
use crate::plan::{Carried, Plan};
use crate::scheme::Scheme;
use crate::weights::{from_f32, to_f32};

/// Elements that are converted at a time.
const CHUNK: u64 = 1 << 18;

/// Copies a tensor, in the type that is planned for it; refuses what is not finite.
pub(crate) fn tensor(carried: &Carried<'_>, out: &mut TensorWriter<'_>) -> Result<(), Error> {
    let (tensor, target) = (carried.tensor, carried.spec.dtype);
    let width = u64::from(tensor.dtype().bits().div_ceil(8));
    let total = tensor.byte_len();
    let mut buffer = vec![0; (CHUNK * width).min(total) as usize];
    let mut start = 0;
    while start < total {
        let length = (buffer.len() as u64).min(total - start);
        let buffer = &mut buffer[..length as usize];
        tensor.read_range(start..start + length, buffer)?;
        match to_f32(tensor.dtype(), buffer) {
            None => out.write_all(buffer)?,
            Some(values) => {
                let place = |at: usize| at + (start / width) as usize;
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err(Error::NotFinite {
                        path: tensor.shard().full_path().to_owned(),
                        tensor: tensor.name().to_owned(),
                        at: place(at),
                        value: values[at],
                    });
                }
                let bytes = from_f32(target, &values).map_err(|at| Error::TooLarge {
                    path: tensor.shard().full_path().to_owned(),
                    tensor: tensor.name().to_owned(),
                    at: place(at),
                    value: values[at],
                    dtype: torch_name(target),
                })?;
                out.write_all(&bytes)?;
            }
        }
        start += length;
    }
    Ok(())
}

/// Writes other values in the place of a tensor's, in the type that is planned for it.
pub(crate) fn values(
    carried: &Carried<'_>,
    values: &[f32],
    out: &mut TensorWriter<'_>,
) -> Result<(), Error> {
    let (tensor, target) = (carried.tensor, carried.spec.dtype);
    let bytes = from_f32(target, values).map_err(|at| Error::TooLarge {
        path: tensor.shard().full_path().to_owned(),
        tensor: tensor.name().to_owned(),
        at,
        value: values[at],
        dtype: torch_name(target),
    })?;
    out.write_all(&bytes)?;
    Ok(())
}

/// Endings of files that hold weights, which a quantized checkpoint replaces.
const WEIGHTS: [&str; 10] = [
    ".bin",
    ".pt",
    ".pth",
    ".h5",
    ".msgpack",
    ".onnx",
    ".ckpt",
    ".gguf",
    ".index.json",
    ".ot",
];

/// The files that are taken over as they are: beside `config.json`, not weights.
pub(crate) fn plain_files(checkpoint: &Checkpoint) -> impl Iterator<Item = &PlainFile> {
    checkpoint.files().iter().filter(|file| {
        let name = file.path().as_str();
        let rewritten = ["config.json", "quantize_config.json", quanto::MAP].contains(&name);
        let weights = WEIGHTS.iter().any(|ending| name.ends_with(ending));
        file.path().parent().is_none() && !rewritten && !weights
    })
}

/// The configuration files of the quantized checkpoint: names and texts.
pub(crate) fn configs(plan: &Plan<'_>) -> Vec<(&'static str, String)> {
    // Output heads are never quantized; clients must be told.
    let heads = plan
        .architecture
        .heads()
        .iter()
        .map(|&head| head.to_owned());
    let skipped: Vec<String> = heads.chain(plan.kept.iter().cloned()).collect();
    let mut config = plan.config.clone();
    let key = match config.get("torch_dtype") {
        Some(_) => "torch_dtype",
        None => "dtype",
    };
    config[key] = Value::from(torch_name(plan.dtype));
    let mut texts = Vec::new();
    if let Some(quantization) = plan.scheme.config(plan.dtype, &skipped, &plan.kept) {
        if let Scheme::Gptq { .. } | Scheme::Awq { .. } = plan.scheme {
            texts.push(("quantize_config.json", json_text(&quantization)));
        }
        config["quantization_config"] = quantization;
    }
    if let Scheme::Quanto { bits } = plan.scheme {
        let layers: Vec<&str> = plan.layers.iter().map(|layer| layer.name).collect();
        texts.push((quanto::MAP, json_text(&quanto::map(&layers, bits))));
    }
    texts.push(("config.json", json_text(&config)));
    texts
}

/// JSON as the ecosystem writes it: two spaces, a line feed at the end.
pub(crate) fn json_text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Writes a file of the output folder.
pub(crate) fn put(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = dir.join(name);
    fs::write(&path, bytes).map_err(Error::io("write", &path))
}

/// Copies a file to the output folder.
pub(crate) fn copy(dir: &Path, file: &PlainFile) -> Result<(), Error> {
    let path = dir.join(file.path().as_str());
    fs::copy(file.full_path(), &path).map_err(Error::io("write", &path))?;
    Ok(())
}

/// Bytes of the original's configuration, which goes beside a GGUF file as it is.
pub(crate) fn config_bytes(checkpoint: &Checkpoint) -> u64 {
    checkpoint.file("config.json").map_or(0, PlainFile::size)
}
