//! From what the user typed to a model that runs.

use sparse_checkpoint::Checkpoint;
use sparse_delta::Progress as _;
use sparse_engine::{Error, Model, ModelConfig, Plain, Source, Tokenizer};
use sparse_quant::QuantizedSource;

use crate::context::Context;
use crate::resolve;

/// A model, and the tokenizer beside it.
pub struct Loaded {
    /// Ready to run.
    pub model: Model,
    /// What `tokenizer.json` says, or why it does not.
    pub tokenizer: Result<Tokenizer, Error>,
}

/// Loads a checkpoint directory or hub id.
pub fn load(spec: &str, context: &Context) -> anyhow::Result<Loaded> {
    let checkpoint = resolve::open(spec, context)?;
    Ok(Loaded {
        tokenizer: Tokenizer::open(&checkpoint),
        model: run(&checkpoint, context)?,
    })
}

fn run(checkpoint: &Checkpoint, context: &Context) -> anyhow::Result<Model> {
    let config = ModelConfig::read(checkpoint)?;
    let quantized = !checkpoint.config()?["quantization_config"].is_null()
        || checkpoint.file(sparse_quant::format::quanto::MAP).is_some();
    let source: Box<dyn Source + '_> = if quantized {
        Box::new(QuantizedSource::open(checkpoint)?)
    } else {
        Box::new(Plain::open(checkpoint)?)
    };
    let bar = context.bar();
    bar.start_count("load", "layers", config.layers.len() as u64);
    let model = Model::load(config, &*source, context.threads(), &|_, _| bar.advance(1))?;
    Ok(model)
}
