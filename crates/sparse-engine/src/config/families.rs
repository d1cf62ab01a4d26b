//! From the keys of each family's `config.json` to the switches of the one decoder.
//!
//! Names and defaults are those of transformers' configuration classes.

use super::fields::Fields;
use super::{
    Activation, Architecture, Arrangement, Biases, LayerConfig, ModelConfig, Norm, Positions, rope,
};
use crate::Error;

/// More layers than any model has.
const MAX_LAYERS: usize = 4096;

const ALL_BIASES: Biases = Biases {
    qkv: true,
    output: true,
    mlp: true,
};

pub(super) fn gpt2(fields: &Fields<'_>) -> Result<ModelConfig, Error> {
    let width = fields.size_or("n_embd", 768)?;
    let heads = fields.size_or("n_head", 12)?;
    let head_width = divided(fields, width, heads)?;
    let scaled = fields.flag("scale_attn_weights", true)?;
    let by_layer = fields.flag("scale_attn_by_inverse_layer_idx", false)?;
    let layers = (0..layer_count(fields, "n_layer", 12)?)
        .map(|layer| LayerConfig {
            window: None,
            rotated: false,
            score_scale: if scaled { root_scale(head_width) } else { 1.0 }
                / if by_layer { (layer + 1) as f32 } else { 1.0 },
        })
        .collect();
    if fields.flag("add_cross_attention", false)? {
        return Err(fields.wrong("add_cross_attention: encoder-decoders are not run".to_owned()));
    }
    Ok(ModelConfig {
        architecture: Architecture::Gpt2,
        vocabulary: fields.size_or("vocab_size", 50257)?,
        width,
        embedding_width: width,
        mlp_width: fields.size_or("n_inner", 4 * width)?,
        heads,
        kv_heads: heads,
        head_width,
        context: fields.tokens("n_positions")?.unwrap_or(1024),
        norm: layer_norm(fields, "layer_norm_epsilon")?,
        positions: Positions::Learned { offset: 0 },
        activation: activation(fields, "activation_function", "gelu_new")?,
        gated: false,
        arrangement: Arrangement::PreNorm,
        biases: ALL_BIASES,
        qk_norm: false,
        tied_head: fields.flag("tie_word_embeddings", true)?,
        layers,
    })
}

pub(super) fn gpt_neox(fields: &Fields<'_>) -> Result<ModelConfig, Error> {
    let width = fields.size_or("hidden_size", 6144)?;
    let heads = fields.size_or("num_attention_heads", 64)?;
    let head_width = divided(fields, width, heads)?;
    let context = fields.tokens("max_position_embeddings")?.unwrap_or(2048);
    let rotary = rope::parse(
        fields,
        rope::Defaults {
            head_width,
            context,
            theta: fields.number_or("rotary_emb_base", 10_000.0)?,
            share: Some(fields.number_or("rotary_pct", 0.25)?),
        },
    )?;
    let parallel = fields.flag("use_parallel_residual", true)?;
    let attention_bias = fields.flag("attention_bias", true)?;
    Ok(ModelConfig {
        architecture: Architecture::GptNeoX,
        vocabulary: fields.size_or("vocab_size", 50432)?,
        width,
        embedding_width: width,
        mlp_width: fields.size_or("intermediate_size", 24576)?,
        heads,
        kv_heads: heads,
        head_width,
        context: rotary.context(context),
        norm: layer_norm(fields, "layer_norm_eps")?,
        positions: Positions::Rotary(rotary),
        activation: activation(fields, "hidden_act", "gelu")?,
        gated: false,
        arrangement: if parallel {
            Arrangement::Parallel
        } else {
            Arrangement::PreNorm
        },
        biases: Biases {
            qkv: attention_bias,
            output: attention_bias,
            mlp: true,
        },
        qk_norm: false,
        tied_head: fields.flag("tie_word_embeddings", false)?,
        layers: alike(layer_count(fields, "num_hidden_layers", 44)?, head_width),
    })
}

pub(super) fn opt(fields: &Fields<'_>) -> Result<ModelConfig, Error> {
    let width = fields.size_or("hidden_size", 768)?;
    let heads = fields.size_or("num_attention_heads", 12)?;
    let head_width = divided(fields, width, heads)?;
    let bias = fields.flag("enable_bias", true)?;
    let before = fields.flag("do_layer_norm_before", true)?;
    if before && fields.flag("_remove_final_layer_norm", false)? {
        return Err(fields.wrong("_remove_final_layer_norm = true is not run".to_owned()));
    }
    Ok(ModelConfig {
        architecture: Architecture::Opt,
        vocabulary: fields.size_or("vocab_size", 50272)?,
        width,
        embedding_width: fields.size_or("word_embed_proj_dim", width)?,
        mlp_width: fields.size_or("ffn_dim", 3072)?,
        heads,
        kv_heads: heads,
        head_width,
        context: fields.tokens("max_position_embeddings")?.unwrap_or(2048),
        norm: Norm::Layer {
            epsilon: 1e-5,
            affine: fields.flag("layer_norm_elementwise_affine", true)?,
        },
        positions: Positions::Learned { offset: 2 },
        activation: activation(fields, "activation_function", "relu")?,
        gated: false,
        arrangement: if before {
            Arrangement::PreNorm
        } else {
            Arrangement::PostNorm
        },
        biases: Biases {
            qkv: bias,
            output: bias,
            mlp: bias,
        },
        qk_norm: false,
        tied_head: fields.flag("tie_word_embeddings", true)?,
        layers: alike(layer_count(fields, "num_hidden_layers", 12)?, head_width),
    })
}

/// What differs between the descendants of Llama when a key is missing.
struct LlamaDefaults {
    vocabulary: usize,
    width: usize,
    mlp_width: usize,
    layers: usize,
    heads: usize,
    kv_heads: Option<usize>,
    head_width: Option<usize>,
    context: usize,
    theta: f64,
    tied_head: bool,
}

fn llama_defaults(architecture: Architecture) -> LlamaDefaults {
    let llama = LlamaDefaults {
        vocabulary: 32000,
        width: 4096,
        mlp_width: 11008,
        layers: 32,
        heads: 32,
        kv_heads: None,
        head_width: None,
        context: 2048,
        theta: 10_000.0,
        tied_head: false,
    };
    match architecture {
        Architecture::Mistral => LlamaDefaults {
            mlp_width: 14336,
            kv_heads: Some(8),
            context: 131_072,
            ..llama
        },
        Architecture::Qwen2 | Architecture::Qwen3 => LlamaDefaults {
            vocabulary: 151_936,
            mlp_width: 22016,
            kv_heads: Some(32),
            head_width: (architecture == Architecture::Qwen3).then_some(128),
            context: 32768,
            ..llama
        },
        Architecture::SmolLm3 => LlamaDefaults {
            vocabulary: 128_256,
            width: 2048,
            layers: 36,
            heads: 16,
            kv_heads: Some(4),
            context: 32768,
            theta: 2_000_000.0,
            tied_head: true,
            ..llama
        },
        _ => llama,
    }
}

pub(super) fn llama_like(
    fields: &Fields<'_>,
    architecture: Architecture,
) -> Result<ModelConfig, Error> {
    let defaults = llama_defaults(architecture);
    let width = fields.size_or("hidden_size", defaults.width)?;
    let heads = fields.size_or("num_attention_heads", defaults.heads)?;
    let head_width = match fields.size("head_dim")?.or(defaults.head_width) {
        Some(head_width) => head_width,
        None => divided(fields, width, heads)?,
    };
    let kv_default = defaults.kv_heads.unwrap_or(heads);
    let context = fields
        .tokens("max_position_embeddings")?
        .unwrap_or(defaults.context);
    let rotary = rope::parse(
        fields,
        rope::Defaults {
            head_width,
            context,
            theta: fields.number_or("rope_theta", defaults.theta)?,
            share: None,
        },
    )?;
    let attention_bias = fields.flag("attention_bias", false)?;
    let count = layer_count(fields, "num_hidden_layers", defaults.layers)?;
    let mut layers = alike(count, head_width);
    let rotated = rotated(fields, architecture, count)?;
    let windows = windows(fields, architecture, &rotated)?;
    for (layer, (window, rotated)) in layers.iter_mut().zip(windows.into_iter().zip(rotated)) {
        layer.window = window;
        layer.rotated = rotated;
    }
    Ok(ModelConfig {
        architecture,
        vocabulary: fields.size_or("vocab_size", defaults.vocabulary)?,
        width,
        embedding_width: width,
        mlp_width: fields.size_or("intermediate_size", defaults.mlp_width)?,
        heads,
        kv_heads: fields.size_or("num_key_value_heads", kv_default)?,
        head_width,
        context: rotary.context(context),
        norm: Norm::Rms {
            epsilon: epsilon(fields, "rms_norm_eps", 1e-6)?,
        },
        positions: Positions::Rotary(rotary),
        activation: activation(fields, "hidden_act", "silu")?,
        gated: true,
        arrangement: Arrangement::PreNorm,
        biases: Biases {
            qkv: attention_bias || architecture == Architecture::Qwen2,
            output: attention_bias && architecture != Architecture::Qwen2,
            mlp: fields.flag("mlp_bias", false)?,
        },
        qk_norm: architecture == Architecture::Qwen3,
        tied_head: fields.flag("tie_word_embeddings", defaults.tied_head)?,
        layers,
    })
}

/// The sliding window of each layer.
fn windows(
    fields: &Fields<'_>,
    architecture: Architecture,
    rotated: &[bool],
) -> Result<Vec<Option<usize>>, Error> {
    let count = rotated.len();
    // Where the key is missing, 4096, but none in SmolLM3; where it is null, none.
    let window = match fields.tokens("sliding_window")? {
        None if !fields.has("sliding_window") && architecture != Architecture::SmolLm3 => {
            Some(4096)
        }
        window => window,
    };
    let everywhere = match architecture {
        Architecture::Mistral => return Ok(vec![window; count]),
        Architecture::Llama => return Ok(vec![None; count]),
        _ => {
            let used = fields.flag("use_sliding_window", false)?;
            window.filter(|_| used)
        }
    };
    if let Some(types) = fields.texts("layer_types")? {
        if types.len() != count {
            let found = types.len();
            return Err(fields.wrong(format!("layer_types has {found} items for {count} layers")));
        }
        let one = |kind: &&str| match *kind {
            "full_attention" => Ok(None),
            "sliding_attention" => Ok(everywhere),
            other => Err(fields.wrong(format!("layer_types: {other:?} is not run"))),
        };
        return types.iter().map(one).collect();
    }
    if architecture == Architecture::SmolLm3 {
        // Layers that see all of the text need positions; those without are given a window.
        let one = |&rotated: &bool| everywhere.filter(|_| !rotated);
        return Ok(rotated.iter().map(one).collect());
    }
    let full = fields.get("max_window_layers").map_or(Some(28), |layers| {
        layers
            .as_u64()
            .and_then(|layers| usize::try_from(layers).ok())
    });
    let Some(full) = full else {
        return Err(fields.wrong("max_window_layers should be a whole number".to_owned()));
    };
    Ok((0..count)
        .map(|layer| everywhere.filter(|_| layer >= full))
        .collect())
}

/// Whether each layer rotates its queries and keys.
fn rotated(
    fields: &Fields<'_>,
    architecture: Architecture,
    count: usize,
) -> Result<Vec<bool>, Error> {
    if architecture != Architecture::SmolLm3 {
        return Ok(vec![true; count]);
    }
    if let Some(flags) = fields.numbers("no_rope_layers")? {
        if flags.len() != count {
            let found = flags.len();
            return Err(fields.wrong(format!(
                "no_rope_layers has {found} items for {count} layers"
            )));
        }
        return Ok(flags.iter().map(|&flag| flag != 0.0).collect());
    }
    let interval = fields.size_or("no_rope_layer_interval", 4)?;
    Ok((1..=count)
        .map(|layer| !layer.is_multiple_of(interval))
        .collect())
}

fn layer_count(fields: &Fields<'_>, key: &str, default: usize) -> Result<usize, Error> {
    let count = fields.size_or(key, default)?;
    if count > MAX_LAYERS {
        return Err(fields.wrong(format!(
            "{key} should be at most {MAX_LAYERS}, found {count}"
        )));
    }
    Ok(count)
}

fn alike(count: usize, head_width: usize) -> Vec<LayerConfig> {
    let layer = LayerConfig {
        window: None,
        rotated: true,
        score_scale: root_scale(head_width),
    };
    vec![layer; count]
}

fn root_scale(head_width: usize) -> f32 {
    1.0 / (head_width as f32).sqrt()
}

fn divided(fields: &Fields<'_>, width: usize, heads: usize) -> Result<usize, Error> {
    if !width.is_multiple_of(heads) {
        return Err(fields.wrong(format!("width {width} is not a multiple of {heads} heads")));
    }
    Ok(width / heads)
}

fn epsilon(fields: &Fields<'_>, key: &str, default: f64) -> Result<f32, Error> {
    Ok(fields.number_or(key, default)? as f32)
}

fn layer_norm(fields: &Fields<'_>, key: &str) -> Result<Norm, Error> {
    Ok(Norm::Layer {
        epsilon: epsilon(fields, key, 1e-5)?,
        affine: true,
    })
}

fn activation(fields: &Fields<'_>, key: &str, default: &str) -> Result<Activation, Error> {
    let name = fields.text(key)?.unwrap_or(default);
    Ok(match name {
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Activation::GeluTanh,
        "quick_gelu" => Activation::GeluQuick,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        other => return Err(fields.wrong(format!("{key}: activation {other:?} is not known"))),
    })
}
