//! Which tensors of a checkpoint are linear layers, family by family.

use std::path::Path;

use serde_json::Value;

use crate::Error;

/// A family of decoders whose tensor names are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// GPT-2 and DistilGPT-2: layers are Conv1D, stored `[inputs, outputs]`.
    Gpt2,
    /// Llama, Mistral, Qwen2, Qwen3, SmolLM: separate q, k, v and gate, up, down.
    Llama,
    /// GPT-NeoX and Pythia: fused, interleaved q, k, v.
    GptNeoX,
    /// OPT.
    Opt,
}

/// `model_type` and the family that it is of.
const MODEL_TYPES: [(&str, Architecture); 8] = [
    ("gpt2", Architecture::Gpt2),
    ("llama", Architecture::Llama),
    ("mistral", Architecture::Llama),
    ("qwen2", Architecture::Llama),
    ("qwen3", Architecture::Llama),
    ("smollm3", Architecture::Llama),
    ("gpt_neox", Architecture::GptNeoX),
    ("opt", Architecture::Opt),
];

impl Architecture {
    /// The family that a parsed `config.json`, found at `path`, is of.
    ///
    /// # Errors
    /// If `model_type` is missing or not known.
    pub fn of(config: &Value, path: &Path) -> Result<Architecture, Error> {
        let found = config["model_type"].as_str().unwrap_or_default();
        MODEL_TYPES
            .iter()
            .find(|(name, _)| *name == found)
            .map(|&(_, architecture)| architecture)
            .ok_or_else(|| Error::Architecture {
                path: path.to_owned(),
                found: found.to_owned(),
                known: MODEL_TYPES.map(|(name, _)| name.to_owned()).to_vec(),
            })
    }

    /// The name of the family.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Gpt2 => "GPT-2",
            Architecture::Llama => "Llama",
            Architecture::GptNeoX => "GPT-NeoX",
            Architecture::Opt => "OPT",
        }
    }

    /// Whether layers are stored `[inputs, outputs]`.
    pub fn transposed(self) -> bool {
        self == Architecture::Gpt2
    }

    /// The linear layers of block `N`, in the order in which data flows through them.
    pub fn linears(self) -> &'static [&'static str] {
        match self {
            Architecture::Gpt2 => &["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
            Architecture::Llama => &[
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.o_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
            ],
            Architecture::GptNeoX => &[
                "attention.query_key_value",
                "attention.dense",
                "mlp.dense_h_to_4h",
                "mlp.dense_4h_to_h",
            ],
            Architecture::Opt => &[
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "self_attn.out_proj",
                "fc1",
                "fc2",
            ],
        }
    }

    /// What stands before the number of a block, with and without the model's own prefix.
    fn block_prefixes(self) -> &'static [&'static str] {
        match self {
            Architecture::Gpt2 => &["transformer.h.", "h."],
            Architecture::Llama => &["model.layers.", "layers."],
            Architecture::GptNeoX => &["gpt_neox.layers.", "layers."],
            Architecture::Opt => &["model.decoder.layers.", "decoder.layers."],
        }
    }

    /// The place of a tensor: its block, and its name within the block; `None` outside blocks.
    pub fn block(self, tensor: &str) -> Option<(usize, &str)> {
        let rest = self
            .block_prefixes()
            .iter()
            .find_map(|p| tensor.strip_prefix(p))?;
        let (number, rest) = rest.split_once('.')?;
        Some((number.parse().ok()?, rest))
    }

    /// The layer whose weight a tensor is: the tensor's name without `.weight`.
    pub fn layer(self, tensor: &str) -> Option<&str> {
        let layer = tensor.strip_suffix(".weight")?;
        let (_, within) = self.block(layer)?;
        self.linears().contains(&within).then_some(layer)
    }

    /// The number of inputs of a layer within a block, by the model's configuration.
    pub fn inputs(self, config: &Value, within: &str) -> Option<usize> {
        let size = |key: &str| usize::try_from(config[key].as_u64()?).ok();
        match self {
            Architecture::Gpt2 if within == "mlp.c_proj" => {
                size("n_inner").or_else(|| size("n_embd")?.checked_mul(4))
            }
            Architecture::Gpt2 => size("n_embd"),
            Architecture::Llama => match within {
                "mlp.down_proj" => size("intermediate_size"),
                "self_attn.o_proj" => match size("head_dim") {
                    Some(width) => width.checked_mul(size("num_attention_heads")?),
                    None => size("hidden_size"),
                },
                _ => size("hidden_size"),
            },
            Architecture::GptNeoX if within == "mlp.dense_4h_to_h" => size("intermediate_size"),
            Architecture::Opt if within == "fc2" => size("ffn_dim"),
            Architecture::GptNeoX | Architecture::Opt => size("hidden_size"),
        }
    }

    /// Whether a tensor is a constant that old checkpoints carry and loaders make themselves:
    /// attention masks and rotary frequencies.
    pub fn is_buffer(self, tensor: &str) -> bool {
        let ends = |suffix: &str| tensor.ends_with(suffix);
        match self {
            Architecture::Gpt2 => ends(".attn.bias") || ends(".attn.masked_bias"),
            Architecture::Llama => ends(".rotary_emb.inv_freq"),
            Architecture::GptNeoX => {
                ends(".attention.bias")
                    || ends(".attention.masked_bias")
                    || ends(".rotary_emb.inv_freq")
            }
            Architecture::Opt => false,
        }
    }

    /// Names of modules beside the blocks that clients would quantize if they were not told not to.
    pub fn heads(self) -> &'static [&'static str] {
        match self {
            // The file's name for it, and the module's since transformers 5.
            Architecture::GptNeoX => &["embed_out", "lm_head"],
            _ => &["lm_head"],
        }
    }

    /// Whether a tensor is the embedding of the tokens.
    pub(crate) fn is_embedding(self, tensor: &str) -> bool {
        let embedding = match self {
            Architecture::Gpt2 => "wte",
            Architecture::GptNeoX => "embed_in",
            Architecture::Llama | Architecture::Opt => "embed_tokens",
        };
        let module = tensor.strip_suffix(".weight");
        module.and_then(|module| module.rsplit('.').next()) == Some(embedding)
    }

    /// Whether a tensor is the output head's weight.
    pub fn is_head(self, tensor: &str) -> bool {
        self.heads()
            .iter()
            .any(|head| tensor.strip_suffix(".weight") == Some(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_found_with_and_without_the_models_prefix() {
        let gpt2 = Architecture::Gpt2;
        for prefix in ["", "transformer."] {
            let name = format!("{prefix}h.11.attn.c_attn.weight");
            assert_eq!(gpt2.layer(&name), name.strip_suffix(".weight"));
            assert!(gpt2.is_buffer(&format!("{prefix}h.0.attn.bias")));
            assert_eq!(gpt2.layer(&format!("{prefix}h.0.attn.c_attn.bias")), None);
            assert_eq!(gpt2.layer(&format!("{prefix}h.0.ln_1.weight")), None);
        }
        assert!(!gpt2.is_buffer("h.0.attn.c_attn.bias"));
        assert_eq!(gpt2.block("h.3.ln_1.weight"), Some((3, "ln_1.weight")));
        assert_eq!(gpt2.layer("wte.weight"), None);
        assert_eq!(Architecture::Llama.layer("lm_head.weight"), None);
        assert!(Architecture::Llama.is_head("lm_head.weight"));
        assert_eq!(Architecture::GptNeoX.heads(), ["embed_out", "lm_head"]);
    }

    #[test]
    fn an_unknown_model_type_is_refused_with_the_known_ones() {
        let config = serde_json::json!({"model_type": "t5"});
        let error = Architecture::of(&config, Path::new("config.json")).unwrap_err();
        assert!(error.to_string().contains("\"t5\"") && error.to_string().contains("gpt_neox"));
        assert!(Architecture::of(&Value::Null, Path::new("config.json")).is_err());
    }
}
