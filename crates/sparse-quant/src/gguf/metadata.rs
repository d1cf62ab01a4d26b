//! Hyperparameters under llama.cpp's keys.

use std::path::Path;

use serde_json::Value as Json;
use sparse_checkpoint::Checkpoint;
use sparse_engine::{ModelConfig, Positions, RopeScaling, Rotary};

use super::FileType;
use super::container::Value;
use crate::{Architecture, Error};

/// The pairs that describe the model, without its tokenizer.
///
/// # Errors
/// If the configuration lacks what llama.cpp needs, or wants what it does not have.
pub(super) fn pairs(
    architecture: Architecture,
    config: &Json,
    path: &Path,
    file_type: FileType,
    name: &str,
) -> Result<Vec<(String, Value)>, Error> {
    let read = Reader { config, path };
    let arch = arch(architecture, config)?;
    let mut pairs = vec![
        (
            "general.architecture".to_owned(),
            Value::Text(arch.to_owned()),
        ),
        ("general.name".to_owned(), Value::Text(name.to_owned())),
        (
            "general.file_type".to_owned(),
            Value::Unsigned(file_type.id().into()),
        ),
        (
            "general.quantization_version".to_owned(),
            Value::Unsigned(2),
        ),
    ];
    let mut put = |key: &str, value: Value| pairs.push((format!("{arch}.{key}"), value));
    match architecture {
        Architecture::Gpt2 => {
            let width = read.number("n_embd")?;
            put("block_count", Value::Unsigned(read.number("n_layer")?));
            put(
                "context_length",
                Value::Unsigned(read.number("n_positions")?),
            );
            put("embedding_length", Value::Unsigned(width));
            let inner = config["n_inner"].as_u64().unwrap_or(4 * width);
            put("feed_forward_length", Value::Unsigned(inner));
            put(
                "attention.head_count",
                Value::Unsigned(read.number("n_head")?),
            );
            put(
                "attention.layer_norm_epsilon",
                Value::Float(read.float("layer_norm_epsilon")?),
            );
        }
        _ => {
            let (width, heads) = (
                read.number("hidden_size")?,
                read.number("num_attention_heads")?,
            );
            let head_width = config["head_dim"].as_u64().unwrap_or(width / heads.max(1));
            put(
                "block_count",
                Value::Unsigned(read.number("num_hidden_layers")?),
            );
            put(
                "context_length",
                Value::Unsigned(read.number("max_position_embeddings")?),
            );
            put("embedding_length", Value::Unsigned(width));
            put(
                "feed_forward_length",
                Value::Unsigned(read.number("intermediate_size")?),
            );
            put("attention.head_count", Value::Unsigned(heads));
            put("vocab_size", Value::Unsigned(read.number("vocab_size")?));
            if architecture == Architecture::GptNeoX {
                let share = config["rotary_pct"]
                    .as_f64()
                    .or(config["rope_parameters"]["partial_rotary_factor"].as_f64())
                    .unwrap_or(0.25);
                let rotated = (share * head_width as f64) as u64;
                put("rope.dimension_count", Value::Unsigned(rotated));
                let parallel = config["use_parallel_residual"] != false;
                put("use_parallel_residual", Value::Bool(parallel));
                put(
                    "attention.layer_norm_epsilon",
                    Value::Float(read.float("layer_norm_eps")?),
                );
            } else {
                let shared = config["num_key_value_heads"].as_u64().unwrap_or(heads);
                put("attention.head_count_kv", Value::Unsigned(shared));
                put("attention.key_length", Value::Unsigned(head_width));
                put("attention.value_length", Value::Unsigned(head_width));
                put("rope.dimension_count", Value::Unsigned(head_width));
                let epsilon = read.float("rms_norm_eps")?;
                put("attention.layer_norm_rms_epsilon", Value::Float(epsilon));
            }
            put("rope.freq_base", Value::Float(read.rope_base()));
            if let Some(factor) = read.linear_stretch() {
                put("rope.scaling.type", Value::Text("linear".to_owned()));
                put("rope.scaling.factor", Value::Float(factor));
            }
        }
    }
    Ok(pairs)
}

/// llama.cpp's name for the family.
fn arch(architecture: Architecture, config: &Json) -> Result<&'static str, Error> {
    let model_type = config["model_type"].as_str().unwrap_or_default();
    match (architecture, model_type) {
        (Architecture::Gpt2, _) => Ok("gpt2"),
        (Architecture::Llama, "llama" | "mistral") => Ok("llama"),
        (Architecture::Llama, "qwen2") => Ok("qwen2"),
        (Architecture::Llama, "qwen3") => Ok("qwen3"),
        // llama.cpp leaves the positions of every fourth layer out, whatever the configuration says.
        (Architecture::Llama, "smollm3") if leaves_out_every_fourth(config) => Ok("smollm3"),
        (Architecture::GptNeoX, _) => Ok("gptneox"),
        _ => Err(unsupported(
            model_type,
            "llama.cpp does not run this architecture, or not this way",
        )),
    }
}

/// Whether a SmolLM3 rotates all layers but each fourth, and looks at the whole text in all.
fn leaves_out_every_fourth(config: &Json) -> bool {
    let rotated = |layer: usize| !(layer + 1).is_multiple_of(4);
    let pattern = match config["no_rope_layers"].as_array() {
        Some(flags) => flags
            .iter()
            .enumerate()
            .all(|(layer, flag)| flag.as_u64() == Some(u64::from(rotated(layer)))),
        None => config["no_rope_layer_interval"].as_u64().unwrap_or(4) == 4,
    };
    pattern && config["use_sliding_window"] != true
}

/// What each pair of rotated values is slowed down by, where llama.cpp has no name for the rule but
/// takes the factors in a tensor: Llama 3.1's and 3.2's.
///
/// # Errors
/// If it would not read the tensor, or the rule is another that it has not.
pub(super) fn slowed(
    checkpoint: &Checkpoint,
    architecture: Architecture,
    config: &Json,
) -> Result<Option<Vec<f32>>, Error> {
    let kind = match rope_parameters(config) {
        Some((_, kind)) if kind != "linear" => kind,
        _ => return Ok(None),
    };
    let refused = || {
        let reason = "llama.cpp has no such stretched positions for this model";
        unsupported(&format!("rope_type {kind}"), reason)
    };
    if kind != "llama3" || arch(architecture, config)? != "llama" {
        return Err(refused());
    }
    let Positions::Rotary(rotary) = ModelConfig::read(checkpoint)?.positions else {
        return Err(refused());
    };
    let plain = Rotary {
        scaling: RopeScaling::None,
        ..rotary.clone()
    };
    let pairs = plain.frequencies(0).into_iter().zip(rotary.frequencies(0));
    Ok(Some(
        pairs.map(|(plain, slow)| (plain / slow) as f32).collect(),
    ))
}

/// Where a configuration stretches rotary positions: its parameters, and the rule's name.
fn rope_parameters(config: &Json) -> Option<(&Json, &str)> {
    let parameters = nested_rope(config);
    let kind = parameters["rope_type"]
        .as_str()
        .or(parameters["type"].as_str());
    kind.filter(|kind| *kind != "default")
        .map(|kind| (parameters, kind))
}

fn nested_rope(config: &Json) -> &Json {
    match (&config["rope_parameters"], &config["rope_scaling"]) {
        (Json::Null, scaling) => scaling,
        (parameters, _) => parameters,
    }
}

pub(super) fn unsupported(what: &str, reason: &str) -> Error {
    Error::Unsupported {
        what: format!("gguf for {what}"),
        reason: reason.to_owned(),
        instead: "use gptq_quality, bnb_nf4 or hqq_4bit".to_owned(),
    }
}

struct Reader<'a> {
    config: &'a Json,
    path: &'a Path,
}

impl Reader<'_> {
    fn wrong(&self, key: &str, expected: &'static str) -> Error {
        Error::Config {
            path: self.path.to_owned(),
            key: key.to_owned(),
            expected,
        }
    }

    fn number(&self, key: &str) -> Result<u64, Error> {
        let number = self.config[key]
            .as_u64()
            .filter(|number| u32::try_from(*number).is_ok());
        number.ok_or_else(|| self.wrong(key, "a whole number"))
    }

    fn float(&self, key: &str) -> Result<f64, Error> {
        self.config[key]
            .as_f64()
            .ok_or_else(|| self.wrong(key, "a number"))
    }

    /// The base of rotary positions.
    fn rope_base(&self) -> f64 {
        let base = nested_rope(self.config)["rope_theta"]
            .as_f64()
            .or(self.config["rope_theta"].as_f64());
        base.or(self.config["rotary_emb_base"].as_f64())
            .unwrap_or(10_000.0)
    }

    /// What all positions are divided by, where they are.
    fn linear_stretch(&self) -> Option<f64> {
        let (parameters, _) = rope_parameters(self.config).filter(|(_, kind)| *kind == "linear")?;
        parameters["factor"].as_f64()
    }
}
