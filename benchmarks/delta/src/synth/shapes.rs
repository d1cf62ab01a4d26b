//! The tensors of Llama models of known sizes.

use clap::ValueEnum;
use serde_json::{Value, json};

/// A known model.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shape {
    /// Llama 2 7B: 6.7 billion weights, 13.5 GB.
    #[value(name = "7b")]
    Llama7b,
    /// Llama 3.2 3B: 3.2 billion weights, 6.4 GB, tied head.
    #[value(name = "3b")]
    Llama3b,
    /// Llama 3.2 1B: 1.2 billion weights, 2.5 GB, tied head.
    #[value(name = "1b")]
    Llama1b,
}

impl Shape {
    /// Its dimensions.
    pub fn architecture(self) -> Architecture {
        match self {
            Shape::Llama7b => Architecture {
                vocabulary: 32_000,
                hidden: 4096,
                intermediate: 11_008,
                layers: 32,
                heads: 32,
                key_value_heads: 32,
                head_size: 128,
                tied: false,
            },
            Shape::Llama3b => Architecture {
                vocabulary: 128_256,
                hidden: 3072,
                intermediate: 8192,
                layers: 28,
                heads: 24,
                key_value_heads: 8,
                head_size: 128,
                tied: true,
            },
            Shape::Llama1b => Architecture {
                vocabulary: 128_256,
                hidden: 2048,
                intermediate: 8192,
                layers: 16,
                heads: 32,
                key_value_heads: 8,
                head_size: 64,
                tied: true,
            },
        }
    }
}

/// Dimensions of a Llama model.
#[derive(Debug, Clone)]
pub struct Architecture {
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Decoder blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub key_value_heads: usize,
    /// Width of a head.
    pub head_size: usize,
    /// Whether the output head is the embedding.
    pub tied: bool,
}

/// How a tensor's weights are distributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// About zero.
    Matrix,
    /// About one.
    Norm,
}

/// A bf16 tensor to write.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its distribution.
    pub kind: Kind,
}

impl Tensor {
    /// Size in bf16.
    pub fn bytes(&self) -> u64 {
        2 * self.shape.iter().map(|&n| n as u64).product::<u64>()
    }
}

impl Architecture {
    /// All tensors in the order of the file.
    pub fn tensors(&self) -> Vec<Tensor> {
        let matrix = |name: String, rows, columns| Tensor {
            name: name + ".weight",
            shape: vec![rows, columns],
            kind: Kind::Matrix,
        };
        let norm = |name: String| Tensor {
            name: name + ".weight",
            shape: vec![self.hidden],
            kind: Kind::Norm,
        };
        let queries = self.heads * self.head_size;
        let keys = self.key_value_heads * self.head_size;
        let mut tensors = vec![matrix(
            "model.embed_tokens".to_owned(),
            self.vocabulary,
            self.hidden,
        )];
        for layer in 0..self.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            tensors.extend([
                norm(name("input_layernorm")),
                matrix(name("mlp.down_proj"), self.hidden, self.intermediate),
                matrix(name("mlp.gate_proj"), self.intermediate, self.hidden),
                matrix(name("mlp.up_proj"), self.intermediate, self.hidden),
                norm(name("post_attention_layernorm")),
                matrix(name("self_attn.k_proj"), keys, self.hidden),
                matrix(name("self_attn.o_proj"), self.hidden, queries),
                matrix(name("self_attn.q_proj"), queries, self.hidden),
                matrix(name("self_attn.v_proj"), keys, self.hidden),
            ]);
        }
        tensors.push(norm("model.norm".to_owned()));
        if !self.tied {
            tensors.push(matrix("lm_head".to_owned(), self.vocabulary, self.hidden));
        }
        tensors
    }

    /// What `config.json` says of it.
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "dtype": "bfloat16",
            "head_dim": self.head_size,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": 4096,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.key_value_heads,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": self.tied,
            "vocab_size": self.vocabulary,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_models_have_their_known_number_of_weights() {
        let weights = |shape: Shape| {
            let tensors = shape.architecture().tensors();
            tensors.iter().map(Tensor::bytes).sum::<u64>() / 2
        };
        assert_eq!(weights(Shape::Llama7b), 6_738_415_616);
        assert_eq!(weights(Shape::Llama3b), 3_212_749_824);
        assert_eq!(weights(Shape::Llama1b), 1_235_814_400);
    }
}
