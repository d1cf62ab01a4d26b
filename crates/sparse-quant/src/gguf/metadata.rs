//! Hyperparameters under llama.cpp's keys.

use std::path::Path;

use serde_json::Value as Json;

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
            put("rope.freq_base", Value::Float(read.rope_base()?));
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
        (Architecture::GptNeoX, _) => Ok("gptneox"),
        _ => Err(unsupported(
            model_type,
            "llama.cpp does not run this architecture, or not this way",
        )),
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

    /// The base of rotary positions, unless they are stretched.
    fn rope_base(&self) -> Result<f64, Error> {
        let config = self.config;
        let parameters = match (&config["rope_parameters"], &config["rope_scaling"]) {
            (Json::Null, scaling) => scaling,
            (parameters, _) => parameters,
        };
        let kind = parameters["rope_type"]
            .as_str()
            .or(parameters["type"].as_str());
        if let Some(kind) = kind.filter(|kind| *kind != "default") {
            let reason = "its stretched rotary positions are not written";
            return Err(unsupported(&format!("rope_type {kind}"), reason));
        }
        let base = parameters["rope_theta"]
            .as_f64()
            .or(config["rope_theta"].as_f64());
        Ok(base
            .or(config["rotary_emb_base"].as_f64())
            .unwrap_or(10_000.0))
    }
}
