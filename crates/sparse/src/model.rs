//! From what the user typed to a model that runs.

use std::path::{Path, PathBuf};

use sparse_checkpoint::Checkpoint;
use sparse_delta::Progress as _;
use sparse_engine::{Activations, Error, Half, Model, ModelConfig, Plain, Source, Tokenizer};
use sparse_quant::QuantizedSource;
use sparse_quant::gguf::GgufSource;

use crate::context::Context;
use crate::resolve;

/// A model, and the tokenizer beside it.
pub struct Loaded {
    /// Ready to run.
    pub model: Model,
    /// What `tokenizer.json` says, or why it does not.
    pub tokenizer: Result<Tokenizer, Error>,
}

/// Parses what quantized layers make of their activations.
pub fn activations(text: &str) -> Result<Activations, String> {
    match text {
        "f32" => Ok(Activations::F32),
        "int8" => Ok(Activations::Int8),
        _ => Err("it should be f32 or int8".to_owned()),
    }
}

/// Parses what weights of a checkpoint that is not quantized are rounded to.
pub fn weights(text: &str) -> Result<Half, String> {
    match text {
        "f16" => Ok(Half::F16),
        "bf16" => Ok(Half::Bf16),
        _ => Err("it should be f16 or bf16".to_owned()),
    }
}

/// What a model computes with.
#[derive(Clone, Copy)]
pub struct Numbers {
    /// What goes into quantized layers.
    pub activations: Activations,
    /// What the weights of a checkpoint that is not quantized are rounded to, if at all.
    pub weights: Option<Half>,
}

/// Loads a checkpoint directory, a GGUF file with its configuration and tokenizer beside it, or a
/// hub id.
pub fn load(spec: &str, numbers: Numbers, context: &Context) -> anyhow::Result<Loaded> {
    let gguf = sparse_quant::gguf::find(Path::new(spec));
    let checkpoint = match &gguf {
        Some(file) => Checkpoint::open_any(&folder(file))?,
        None => resolve::open(spec, context)?,
    };
    let config = ModelConfig::read(&checkpoint)?;
    let source = source(&checkpoint, gguf.as_deref(), numbers)?;
    let bar = context.bar();
    bar.start_count("load", "layers", config.layers.len() as u64);
    let model = Model::load(config, &*source, context.threads(), &|_, _| bar.advance(1))?;
    Ok(Loaded {
        model,
        tokenizer: Tokenizer::open(&checkpoint),
    })
}

/// Where a file is.
fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn source<'a>(
    checkpoint: &'a Checkpoint,
    gguf: Option<&Path>,
    numbers: Numbers,
) -> anyhow::Result<Box<dyn Source + 'a>> {
    let Numbers {
        activations,
        weights,
    } = numbers;
    if let Some(file) = gguf {
        return Ok(Box::new(GgufSource::open(file, activations)?));
    }
    let quantized = !checkpoint.config()?["quantization_config"].is_null()
        || checkpoint.file(sparse_quant::format::quanto::MAP).is_some();
    Ok(if quantized {
        Box::new(QuantizedSource::open(checkpoint, activations)?)
    } else {
        let plain = Plain::open(checkpoint)?;
        Box::new(match weights {
            Some(to) => plain.rounded(to),
            None => plain,
        })
    })
}
