//! From what the user typed to a model that runs.

use std::path::{Path, PathBuf};

use sparse_checkpoint::Checkpoint;
use sparse_delta::Progress as _;
use sparse_engine::{Activations, Error, Model, ModelConfig, Plain, Source, Tokenizer};
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

/// Loads a checkpoint directory, a GGUF file with its configuration and tokenizer beside it, or a
/// hub id.
pub fn load(spec: &str, activations: Activations, context: &Context) -> anyhow::Result<Loaded> {
    let gguf = sparse_quant::gguf::find(Path::new(spec));
    let checkpoint = match &gguf {
        Some(file) => Checkpoint::open_any(&folder(file))?,
        None => resolve::open(spec, context)?,
    };
    let config = ModelConfig::read(&checkpoint)?;
    let source = source(&checkpoint, gguf.as_deref(), activations)?;
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
    activations: Activations,
) -> anyhow::Result<Box<dyn Source + 'a>> {
    if let Some(file) = gguf {
        return Ok(Box::new(GgufSource::open(file, activations)?));
    }
    let quantized = !checkpoint.config()?["quantization_config"].is_null()
        || checkpoint.file(sparse_quant::format::quanto::MAP).is_some();
    Ok(if quantized {
        Box::new(QuantizedSource::open(checkpoint, activations)?)
    } else {
        Box::new(Plain::open(checkpoint)?)
    })
}
