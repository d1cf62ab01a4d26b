//! `config.json`, parsed once into what the decoder needs to know.

mod families;
mod fields;
mod rope;

use std::path::Path;

use sparse_checkpoint::Checkpoint;

use crate::Error;
use fields::Fields;

pub use rope::{RopeScaling, Rotary};

/// A family of decoders that share names and layout of their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// GPT-2, DistilGPT-2.
    Gpt2,
    /// Llama 1 to 3, SmolLM, and what else calls itself `llama`.
    Llama,
    /// Mistral 7B.
    Mistral,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3 (dense).
    Qwen3,
    /// SmolLM 3.
    SmolLm3,
    /// GPT-NeoX, Pythia.
    GptNeoX,
    /// OPT.
    Opt,
}

impl Architecture {
    const ALL: [(&'static str, Architecture); 8] = [
        ("gpt2", Architecture::Gpt2),
        ("llama", Architecture::Llama),
        ("mistral", Architecture::Mistral),
        ("qwen2", Architecture::Qwen2),
        ("qwen3", Architecture::Qwen3),
        ("smollm3", Architecture::SmolLm3),
        ("gpt_neox", Architecture::GptNeoX),
        ("opt", Architecture::Opt),
    ];

    /// The `model_type`s that are known.
    pub fn names() -> [&'static str; 8] {
        Architecture::ALL.map(|(name, _)| name)
    }

    /// Its `model_type`.
    pub fn name(self) -> &'static str {
        // Every architecture is in the list.
        let place = Architecture::ALL.iter().find(|(_, one)| *one == self);
        place.map_or("", |(name, _)| name)
    }
}

/// What a decoder is made of. All sizes are in values, not bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Names and layout of the weights.
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the embedding: [`ModelConfig::width`], but for some OPT.
    pub embedding_width: usize,
    /// Width inside of the feed-forward part.
    pub mlp_width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_width: usize,
    /// Most tokens that the model has positions for.
    pub context: usize,
    /// How rows are normalised.
    pub norm: Norm,
    /// How tokens learn where they are.
    pub positions: Positions,
    /// The non-linearity of the feed-forward part.
    pub activation: Activation,
    /// Whether the feed-forward part multiplies the activated half by a plain one.
    pub gated: bool,
    /// In which order norms, attention and feed-forward part come.
    pub arrangement: Arrangement,
    /// Which projections have a bias.
    pub biases: Biases,
    /// Whether queries and keys are normalised, head by head.
    pub qk_norm: bool,
    /// Whether the head is the embedding, unless the checkpoint holds one that differs.
    pub tied_head: bool,
    /// What differs between layers.
    pub layers: Vec<LayerConfig>,
}

/// What differs between the layers of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerConfig {
    /// How many tokens back a token sees, itself included; all where `None`.
    pub window: Option<usize>,
    /// Whether queries and keys are rotated, where the model does that at all.
    pub rotated: bool,
    /// Factor of the attention scores.
    pub score_scale: f32,
}

/// How rows are normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// Mean and variance, weight and bias.
    Layer {
        /// Added to the variance.
        epsilon: f32,
        /// Whether there are weight and bias.
        affine: bool,
    },
    /// Root mean square, weight alone.
    Rms {
        /// Added to the mean square.
        epsilon: f32,
    },
}

/// How tokens learn where they are.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// A table of vectors that are added to the embeddings.
    Learned {
        /// Row of the first position.
        offset: usize,
    },
    /// Queries and keys are rotated.
    Rotary(Rotary),
}

/// The non-linearity of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// GELU by the error function.
    Gelu,
    /// GELU by tanh.
    GeluTanh,
    /// GELU by a logistic function of 1.702 x.
    GeluQuick,
    /// max(x, 0).
    Relu,
    /// x / (1 + exp(-x)).
    Silu,
}

/// In which order norms, attention and feed-forward part come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// Norm, attention, sum; norm, feed-forward, sum; and a norm at the end.
    PreNorm,
    /// Attention, sum, norm; feed-forward, sum, norm; and none at the end.
    PostNorm,
    /// Attention and feed-forward part of the same rows, each by its own norm, summed.
    Parallel,
}

/// Which projections have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Biases {
    /// Those of queries, keys and values.
    pub qkv: bool,
    /// That of attention's output.
    pub output: bool,
    /// Those of the feed-forward part.
    pub mlp: bool,
}

/// No model has wider heads.
pub(crate) const MAX_HEAD_WIDTH: usize = 1024;

impl ModelConfig {
    /// Reads the checkpoint's `config.json`.
    ///
    /// # Errors
    /// If it is missing or malformed, the architecture is not known, or sizes contradict each
    /// other.
    pub fn read(checkpoint: &Checkpoint) -> Result<ModelConfig, Error> {
        ModelConfig::parse(
            &checkpoint.config()?,
            &checkpoint.root().join("config.json"),
        )
    }

    /// Parses the contents of a `config.json`; `path` is what errors name.
    ///
    /// Keys that are missing have the value that transformers gives them.
    ///
    /// # Errors
    /// See [`ModelConfig::read`].
    pub fn parse(json: &serde_json::Value, path: &Path) -> Result<ModelConfig, Error> {
        let fields = Fields::new(json, path)?;
        let found = fields.text("model_type")?.unwrap_or_default();
        let known = Architecture::ALL.iter().find(|(name, _)| *name == found);
        let Some(&(_, architecture)) = known else {
            return Err(Error::Architecture {
                path: path.to_path_buf(),
                found: found.to_owned(),
            });
        };
        let config = match architecture {
            Architecture::Gpt2 => families::gpt2(&fields)?,
            Architecture::GptNeoX => families::gpt_neox(&fields)?,
            Architecture::Opt => families::opt(&fields)?,
            _ => families::llama_like(&fields, architecture)?,
        };
        config.check(&fields)?;
        Ok(config)
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_width
    }

    /// Width of all key heads together; values have the same.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_width
    }

    fn check(&self, fields: &Fields<'_>) -> Result<(), Error> {
        if !self.heads.is_multiple_of(self.kv_heads) {
            let (heads, kv_heads) = (self.heads, self.kv_heads);
            return Err(fields.wrong(format!(
                "{heads} attention heads are not a multiple of {kv_heads} key-value heads"
            )));
        }
        if self.head_width > MAX_HEAD_WIDTH {
            return Err(fields.wrong(format!(
                "heads of {} values are wider than {MAX_HEAD_WIDTH}",
                self.head_width
            )));
        }
        if let Positions::Rotary(rotary) = &self.positions
            && (rotary.width > self.head_width || !rotary.width.is_multiple_of(2))
        {
            return Err(fields.wrong(format!(
                "{} of {} values of a head cannot be rotated: an even number of them can",
                rotary.width, self.head_width
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(json: serde_json::Value) -> Result<ModelConfig, Error> {
        ModelConfig::parse(&json, Path::new("config.json"))
    }

    #[test]
    fn an_unknown_architecture_is_refused_by_name_with_those_known() {
        let error = parse(json!({"model_type": "mamba"})).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"config.json: architecture "mamba" is not supported"#
        );
        assert!(error.hint().unwrap().contains("gpt_neox, opt"));
        assert!(parse(json!({})).is_err());
        assert!(parse(json!([])).is_err());
    }

    #[test]
    fn missing_keys_are_those_of_transformers() {
        let config = parse(json!({"model_type": "gpt2"})).unwrap();
        assert_eq!(
            (config.vocabulary, config.width, config.context),
            (50257, 768, 1024)
        );
        assert_eq!(
            (config.layers.len(), config.heads, config.mlp_width),
            (12, 12, 3072)
        );
        assert_eq!(config.activation, Activation::GeluTanh);
        assert!(config.tied_head);
    }

    #[test]
    fn both_spellings_of_rotary_parameters_are_read() {
        let old = json!({"model_type": "llama", "rope_theta": 5e5, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}});
        let new = json!({"model_type": "llama", "rope_parameters": {"rope_theta": 5e5,
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}});
        assert_eq!(parse(old).unwrap(), parse(new).unwrap());
    }

    #[test]
    fn yarn_reaches_as_far_as_its_factor_says() {
        // The recipe of Qwen 2.5 for longer texts.
        let qwen = json!({"model_type": "qwen2", "max_position_embeddings": 32768,
            "rope_scaling": {"type": "yarn", "factor": 4.0,
                             "original_max_position_embeddings": 32768}});
        assert_eq!(parse(qwen).unwrap().context, 131_072);
        let already = json!({"model_type": "llama", "max_position_embeddings": 65536,
            "rope_scaling": {"type": "yarn", "factor": 4.0,
                             "original_max_position_embeddings": 8192}});
        assert_eq!(parse(already).unwrap().context, 65536);
    }

    #[test]
    fn windows_are_those_of_the_family() {
        let windows = |config: serde_json::Value| -> Vec<Option<usize>> {
            let layers = parse(config).unwrap().layers;
            layers.iter().map(|layer| layer.window).collect()
        };
        let mut config = json!({"model_type": "smollm3", "num_hidden_layers": 4,
            "use_sliding_window": true, "max_window_layers": 0});
        assert_eq!(windows(config.clone()), [None; 4]);
        config["sliding_window"] = 10.into();
        // One layer in four is not rotated.
        assert_eq!(windows(config.clone()), [None, None, None, Some(10)]);
        config["use_sliding_window"] = false.into();
        assert_eq!(windows(config.clone()), [None; 4]);
        config["use_sliding_window"] = true.into();
        config["model_type"] = "qwen3".into();
        config["max_window_layers"] = 3.into();
        assert_eq!(windows(config.clone()), [None, None, None, Some(10)]);
        config["sliding_window"] = json!(null);
        assert_eq!(windows(config), [None; 4]);
    }

    #[test]
    fn a_share_of_a_head_is_rotated_only_where_the_family_does() {
        let mut config = json!({"model_type": "llama", "head_dim": 16,
            "partial_rotary_factor": 0.5});
        let Positions::Rotary(rotary) = parse(config.clone()).unwrap().positions else {
            panic!("rotary");
        };
        assert_eq!(rotary.width, 16);
        config["rope_scaling"] = json!({"rope_type": "linear", "factor": 2.0});
        assert_eq!(
            parse(config).unwrap_err().to_string(),
            "config.json: partial_rotary_factor should be 1 where rotations are scaled, found 0.5"
        );
    }

    #[test]
    fn sizes_that_contradict_each_other_or_nature_are_refused() {
        for (key, value) in [
            ("num_attention_heads", json!(0)),
            ("num_attention_heads", json!(-3)),
            ("num_attention_heads", json!("eight")),
            ("num_hidden_layers", json!(1e12)),
            ("num_hidden_layers", json!(3_000_000_000_u64)),
            ("num_key_value_heads", json!(5)),
            ("head_dim", json!(7)),
            ("hidden_act", json!("swoosh")),
            ("rms_norm_eps", json!("small")),
            ("rope_scaling", json!({"rope_type": "mystery"})),
            (
                "rope_scaling",
                json!({"rope_type": "linear", "factor": 0.0}),
            ),
        ] {
            let mut config = json!({"model_type": "llama"});
            config[key] = value.clone();
            let error = parse(config).unwrap_err().to_string();
            assert!(
                error.starts_with("config.json: "),
                "{key} = {value}: {error}"
            );
        }
    }
}
