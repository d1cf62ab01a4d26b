//! Finding each weight by the name that its architecture gives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::ThreadPool;
use rayon::prelude::*;

use super::attention::Layout;
use super::block::{Attention, Block, Mlp, Norm};
use super::rotary::Rotations;
use super::{Model, Projection};
use crate::Error;
use crate::config::{self, Architecture, Arrangement, LayerConfig, ModelConfig, Positions};
use crate::linear::Linear;
use crate::source::{Order, Source};

/// The names that an architecture gives its weights. Those of a block come after `blocks` and the
/// block's number.
struct Names {
    /// What all names but the head's may begin with.
    prefixes: &'static [&'static str],
    embedding: &'static str,
    positions: &'static str,
    blocks: &'static str,
    attention_norm: &'static str,
    qkv: Qkv,
    attention_output: &'static str,
    mlp_norm: &'static str,
    gate: Option<&'static str>,
    up: &'static str,
    down: &'static str,
    final_norm: &'static str,
    head: &'static str,
    order: Order,
}

enum Qkv {
    Split([&'static str; 3]),
    /// One matrix: all queries, all keys, all values.
    Fused(&'static str),
    /// One matrix: query, key and value of each head in turn.
    ByHead(&'static str),
}

const GPT2: Names = Names {
    prefixes: &["transformer.", ""],
    embedding: "wte",
    positions: "wpe",
    blocks: "h",
    attention_norm: "ln_1",
    qkv: Qkv::Fused("attn.c_attn"),
    attention_output: "attn.c_proj",
    mlp_norm: "ln_2",
    gate: None,
    up: "mlp.c_fc",
    down: "mlp.c_proj",
    final_norm: "ln_f",
    head: "lm_head",
    order: Order::InputsFirst,
};

const LLAMA: Names = Names {
    prefixes: &["model.", ""],
    embedding: "embed_tokens",
    positions: "",
    blocks: "layers",
    attention_norm: "input_layernorm",
    qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attention_output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    gate: Some("mlp.gate_proj"),
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    final_norm: "norm",
    head: "lm_head",
    order: Order::OutputsFirst,
};

const GPT_NEOX: Names = Names {
    prefixes: &["gpt_neox.", ""],
    embedding: "embed_in",
    positions: "",
    blocks: "layers",
    attention_norm: "input_layernorm",
    qkv: Qkv::ByHead("attention.query_key_value"),
    attention_output: "attention.dense",
    mlp_norm: "post_attention_layernorm",
    gate: None,
    up: "mlp.dense_h_to_4h",
    down: "mlp.dense_4h_to_h",
    final_norm: "final_layer_norm",
    head: "embed_out",
    order: Order::OutputsFirst,
};

const OPT: Names = Names {
    prefixes: &["model.decoder.", "decoder.", ""],
    embedding: "embed_tokens",
    positions: "embed_positions",
    blocks: "layers",
    attention_norm: "self_attn_layer_norm",
    qkv: Qkv::Split(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    attention_output: "self_attn.out_proj",
    mlp_norm: "final_layer_norm",
    gate: None,
    up: "fc1",
    down: "fc2",
    final_norm: "final_layer_norm",
    head: "lm_head",
    order: Order::OutputsFirst,
};

fn names(architecture: Architecture) -> &'static Names {
    match architecture {
        Architecture::Gpt2 => &GPT2,
        Architecture::GptNeoX => &GPT_NEOX,
        Architecture::Opt => &OPT,
        Architecture::Llama
        | Architecture::Mistral
        | Architecture::Qwen2
        | Architecture::Qwen3
        | Architecture::SmolLm3 => &LLAMA,
    }
}

/// A source, and what names in it begin with.
struct Loader<'a> {
    config: &'a ModelConfig,
    source: &'a dyn Source,
    names: &'static Names,
    prefix: &'static str,
}

pub(super) fn load(
    config: ModelConfig,
    source: &dyn Source,
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Model, Error> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::Threads {
            message: error.to_string(),
        })?;
    let names = names(config.architecture);
    let has_prefix = |prefix: &&&str| source.has(&format!("{prefix}{}.weight", names.embedding));
    let loader = Loader {
        config: &config,
        source,
        names,
        prefix: names
            .prefixes
            .iter()
            .find(has_prefix)
            .unwrap_or(&names.prefixes[0]),
    };
    let [embedding, head] = loader.embedding_and_head(&pool)?;
    let done = AtomicUsize::new(0);
    let count = config.layers.len();
    let blocks: Vec<Result<Block, Error>> = pool.install(|| {
        let layers = config.layers.par_iter().enumerate();
        let blocks = layers.map(|(at, &layer)| {
            let block = loader.block(at, layer);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, count);
            block
        });
        blocks.collect()
    });
    // The first that is wrong, whichever thread was first to see one.
    let blocks = blocks.into_iter().collect::<Result<Vec<Block>, Error>>()?;
    let positions = loader.positions()?;
    let final_norm = match config.arrangement {
        Arrangement::PostNorm => None,
        _ => Some(loader.norm(&loader.full(names.final_norm))?),
    };
    let [project_in, project_out] = loader.embedding_projections()?;
    let head = Projection {
        linear: head,
        name: names.head.to_owned(),
        bias: None,
    };
    let rotations = match &config.positions {
        Positions::Rotary(rotary) => Some(Rotations::new(rotary.clone())),
        Positions::Learned { .. } => None,
    };
    Ok(Model {
        embedding,
        positions,
        project_in,
        project_out,
        blocks,
        final_norm,
        head,
        rotations,
        pool,
        config,
    })
}

impl Loader<'_> {
    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn norm(&self, name: &str) -> Result<Norm, Error> {
        let width = self.config.width;
        let vector = |part: &str| self.source.vector(&format!("{name}.{part}"), width);
        Ok(match self.config.norm {
            config::Norm::Layer {
                epsilon,
                affine: true,
            } => Norm::Layer {
                weight: vector("weight")?,
                bias: vector("bias")?,
                epsilon,
            },
            config::Norm::Layer {
                epsilon,
                affine: false,
            } => Norm::Layer {
                weight: vec![1.0; width],
                bias: vec![0.0; width],
                epsilon,
            },
            config::Norm::Rms { epsilon } => Norm::Rms {
                weight: vector("weight")?,
                epsilon,
            },
        })
    }

    fn projection(
        &self,
        name: String,
        outputs: usize,
        inputs: usize,
        bias: bool,
    ) -> Result<Projection, Error> {
        let linear = self
            .source
            .linear(&name, outputs, inputs, self.names.order)?;
        let bias = if bias {
            Some(self.source.vector(&format!("{name}.bias"), outputs)?)
        } else {
            None
        };
        Ok(Projection { name, linear, bias })
    }

    fn block(&self, at: usize, layer: LayerConfig) -> Result<Block, Error> {
        let (config, names) = (self.config, self.names);
        let full = |name: &str| self.full(&format!("{}.{at}.{name}", names.blocks));
        let (width, mlp_width, biases) = (config.width, config.mlp_width, config.biases);
        let (query, kv) = (config.query_width(), config.kv_width());
        let inputs = match names.qkv {
            Qkv::Split([q, k, v]) => vec![
                (self.projection(full(q), query, width, biases.qkv)?, 0),
                (self.projection(full(k), kv, width, biases.qkv)?, query),
                (self.projection(full(v), kv, width, biases.qkv)?, query + kv),
            ],
            Qkv::Fused(name) | Qkv::ByHead(name) => {
                vec![(
                    self.projection(full(name), query + 2 * kv, width, biases.qkv)?,
                    0,
                )]
            }
        };
        let qk_norm = match (config.qk_norm, config.norm) {
            (true, config::Norm::Rms { epsilon } | config::Norm::Layer { epsilon, .. }) => Some((
                self.source
                    .vector(&full("self_attn.q_norm.weight"), config.head_width)?,
                self.source
                    .vector(&full("self_attn.k_norm.weight"), config.head_width)?,
                epsilon,
            )),
            (false, _) => None,
        };
        let output = full(names.attention_output);
        let gate = match names.gate {
            Some(gate) => Some(self.projection(full(gate), mlp_width, width, biases.mlp)?),
            None => None,
        };
        Ok(Block {
            attention_norm: self.norm(&full(names.attention_norm))?,
            attention: Attention {
                inputs,
                layout: Layout::of(config, matches!(names.qkv, Qkv::ByHead(_))),
                qk_norm,
                output: self.projection(output, width, query, biases.output)?,
            },
            mlp_norm: self.norm(&full(names.mlp_norm))?,
            mlp: Mlp {
                gate,
                up: self.projection(full(names.up), mlp_width, width, biases.mlp)?,
                down: self.projection(full(names.down), width, mlp_width, biases.mlp)?,
                activation: config.activation,
            },
            arrangement: config.arrangement,
            layer,
        })
    }

    fn positions(&self) -> Result<Option<Vec<f32>>, Error> {
        let Positions::Learned { offset } = self.config.positions else {
            return Ok(None);
        };
        let width = self.config.width;
        let name = self.full(self.names.positions);
        let rows = self.config.context + offset;
        let table = self
            .source
            .linear(&name, rows, width, Order::OutputsFirst)?;
        let mut values = vec![0.0; self.config.context * width];
        for (position, row) in values.chunks_exact_mut(width).enumerate() {
            table.weights(position + offset, row);
        }
        Ok(Some(values))
    }

    /// From the embedding's width to the model's and back, where they differ.
    fn embedding_projections(&self) -> Result<[Option<Projection>; 2], Error> {
        let (width, narrow) = (self.config.width, self.config.embedding_width);
        if width == narrow {
            return Ok([None, None]);
        }
        Ok([
            Some(self.projection(self.full("project_in"), width, narrow, false)?),
            Some(self.projection(self.full("project_out"), narrow, width, false)?),
        ])
    }

    /// What tokens become, and what rows become logits by: one matrix where they are tied.
    ///
    /// As in transformers, what is stored has the last word. A head that differs from the embedding
    /// is used whatever the configuration says of tying, and one of two tied matrices is enough,
    /// whichever it is.
    fn embedding_and_head(&self, pool: &ThreadPool) -> Result<[Arc<dyn Linear>; 2], Error> {
        let (vocabulary, width) = (self.config.vocabulary, self.config.embedding_width);
        let matrix = |name: &str| {
            self.source
                .linear(name, vocabulary, width, Order::OutputsFirst)
        };
        let (embedding, head) = (self.full(self.names.embedding), self.names.head);
        let stored = |name: &str| self.source.has(&format!("{name}.weight"));
        if self.config.tied_head && !(stored(&embedding) && stored(head)) {
            let only = matrix(if stored(head) { head } else { &embedding })?;
            return Ok([Arc::clone(&only), only]);
        }
        let (embedding, head) = (matrix(&embedding)?, matrix(head)?);
        let tied = self.config.tied_head && pool.install(|| equal(&*embedding, &*head));
        let head = if tied { Arc::clone(&embedding) } else { head };
        Ok([embedding, head])
    }
}

/// Whether two matrices of the same shape hold the same values.
fn equal(one: &dyn Linear, other: &dyn Linear) -> bool {
    let rows = || (vec![0.0; one.inputs()], vec![0.0; one.inputs()]);
    (0..one.outputs())
        .into_par_iter()
        .map_init(rows, |(a, b), output| {
            one.weights(output, a);
            other.weights(output, b);
            a == b
        })
        .all(|same| same)
}
