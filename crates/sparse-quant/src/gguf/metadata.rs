//! Hyperparameters under llama.cpp's keys.

use std::path::Path;

use serde_json::Value as Json;
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
    (config, model): (&Json, &ModelConfig),
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
    put("context_length", Value::Unsigned(model.context as u64));
    match architecture {
        Architecture::Gpt2 => {
            let width = read.number("n_embd")?;
            put("block_count", Value::Unsigned(read.number("n_layer")?));
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
            let heads = read.number("num_attention_heads")?;
            put(
                "block_count",
                Value::Unsigned(read.number("num_hidden_layers")?),
            );
            put(
                "embedding_length",
                Value::Unsigned(read.number("hidden_size")?),
            );
            put(
                "feed_forward_length",
                Value::Unsigned(read.number("intermediate_size")?),
            );
            put("attention.head_count", Value::Unsigned(heads));
            put("vocab_size", Value::Unsigned(read.number("vocab_size")?));
            if architecture == Architecture::GptNeoX {
                let parallel = config["use_parallel_residual"] != false;
                put("use_parallel_residual", Value::Bool(parallel));
                put(
                    "attention.layer_norm_epsilon",
                    Value::Float(read.float("layer_norm_eps")?),
                );
            } else {
                let shared = config["num_key_value_heads"].as_u64().unwrap_or(heads);
                let head_width = Value::Unsigned(model.head_width as u64);
                put("attention.head_count_kv", Value::Unsigned(shared));
                put("attention.key_length", head_width.clone());
                put("attention.value_length", head_width);
                let epsilon = read.float("rms_norm_eps")?;
                put("attention.layer_norm_rms_epsilon", Value::Float(epsilon));
            }
        }
    }
    if let Positions::Rotary(rotary) = &model.positions {
        put("rope.dimension_count", Value::Unsigned(rotary.width as u64));
        put("rope.freq_base", Value::Float(rotary.theta));
        for (key, value) in scaling(rotary, arch)? {
            put(&format!("rope.scaling.{key}"), value);
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

/// How positions are stretched, for the rules that llama.cpp has a name for.
///
/// # Errors
/// If it has not the rule, or not for this family.
fn scaling(rotary: &Rotary, arch: &str) -> Result<Vec<(&'static str, Value)>, Error> {
    let refused = |rule: &str| {
        let reason = "llama.cpp has no such stretched positions for this model";
        Err(unsupported(&format!("rope_type {rule}"), reason))
    };
    match rotary.scaling {
        RopeScaling::None => Ok(Vec::new()),
        RopeScaling::Linear { factor } => Ok(vec![
            ("type", Value::Text("linear".to_owned())),
            ("factor", Value::Float(factor)),
        ]),
        RopeScaling::Yarn {
            factor,
            attention,
            original,
            fast,
            slow,
            truncate: true,
        } => Ok(vec![
            ("type", Value::Text("yarn".to_owned())),
            ("factor", Value::Float(factor)),
            ("original_context_length", Value::Unsigned(original as u64)),
            // On top of what it takes from the factor, as the paper does (arXiv:2309.00071).
            (
                "attn_factor",
                Value::Float(attention / (1.0 + 0.1 * factor.max(1.0).ln())),
            ),
            ("yarn_beta_fast", Value::Float(fast)),
            ("yarn_beta_slow", Value::Float(slow)),
        ]),
        // A tensor says it, which is read for this family alone: see `slowed`.
        RopeScaling::Llama3 { .. } if arch == "llama" => Ok(Vec::new()),
        RopeScaling::Yarn { .. } => refused("yarn with a ramp between parts of pairs"),
        RopeScaling::Llama3 { .. } => refused("llama3"),
        RopeScaling::Dynamic { .. } => refused("dynamic"),
        RopeScaling::Long { .. } => refused("longrope"),
    }
}

/// What each pair of rotated values is slowed down by, where llama.cpp has no name for the rule but
/// takes the factors in a tensor: Llama 3.1's and 3.2's.
pub(super) fn slowed(model: &ModelConfig) -> Option<Vec<f32>> {
    let Positions::Rotary(rotary) = &model.positions else {
        return None;
    };
    let RopeScaling::Llama3 { .. } = rotary.scaling else {
        return None;
    };
    let plain = Rotary {
        scaling: RopeScaling::None,
        ..rotary.clone()
    };
    let pairs = plain.frequencies(0).into_iter().zip(rotary.frequencies(0));
    Some(pairs.map(|(plain, slow)| (plain / slow) as f32).collect())
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
}
