//! Where AWQ's scales go: into the norm or the layer that makes a layer's inputs.

use std::collections::BTreeMap;

use sparse_checkpoint::Checkpoint;
use sparse_engine::{Dense, Statistics};

use crate::calibrate::Calibrator;
use crate::method::affine::AffineSpec;
use crate::method::awq;
use crate::plan::{Layer, Plan};
use crate::weights::{read_matrix, read_values};
use crate::{Architecture, Error, Matrix};

/// Layers that read the same inputs, and what makes those.
struct Group {
    /// A norm, or a layer whose outputs reach the others as they are (or times something).
    maker: &'static str,
    readers: &'static [&'static str],
    /// The layer that they lead to, in whose outputs their errors count; without one they count in
    /// their own.
    through: Option<&'static str>,
}

const fn group(maker: &'static str, readers: &'static [&'static str]) -> Group {
    Group {
        maker,
        readers,
        through: None,
    }
}

const fn inner(
    maker: &'static str,
    readers: &'static [&'static str],
    through: &'static str,
) -> Group {
    Group {
        maker,
        readers,
        through: Some(through),
    }
}

/// The groups of a block. Nothing is folded through GELU.
fn groups(architecture: Architecture) -> &'static [Group] {
    const QKV: &[&str] = &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    const GPT2: &[Group] = &[
        inner("ln_1", &["attn.c_attn"], "attn.c_proj"),
        inner("ln_2", &["mlp.c_fc"], "mlp.c_proj"),
    ];
    const LLAMA: &[Group] = &[
        inner("input_layernorm", QKV, "self_attn.o_proj"),
        group("self_attn.v_proj", &["self_attn.o_proj"]),
        inner(
            "post_attention_layernorm",
            &["mlp.gate_proj", "mlp.up_proj"],
            "mlp.down_proj",
        ),
        group("mlp.up_proj", &["mlp.down_proj"]),
    ];
    const NEOX: &[Group] = &[
        inner(
            "input_layernorm",
            &["attention.query_key_value"],
            "attention.dense",
        ),
        inner(
            "post_attention_layernorm",
            &["mlp.dense_h_to_4h"],
            "mlp.dense_4h_to_h",
        ),
    ];
    const OPT: &[Group] = &[
        inner("self_attn_layer_norm", QKV, "self_attn.out_proj"),
        group("self_attn.v_proj", &["self_attn.out_proj"]),
        inner("final_layer_norm", &["fc1"], "fc2"),
        group("fc1", &["fc2"]), // ReLU: what is scaled before it is scaled after it
    ];
    match architecture {
        Architecture::Gpt2 => GPT2,
        Architecture::Llama => LLAMA,
        Architecture::GptNeoX => NEOX,
        Architecture::Opt => OPT,
    }
}

/// What is to be scaled in a block.
#[derive(Debug, Default)]
pub(crate) struct Folding {
    /// Layer -> what its inputs' weights are multiplied by.
    pub inputs: BTreeMap<String, Vec<f32>>,
    /// Layer -> what its outputs' weights are divided by.
    pub outputs: BTreeMap<String, Vec<f32>>,
    /// Vector (of a norm, or a bias) -> its new values.
    pub vectors: BTreeMap<String, Vec<f32>>,
}

impl Folding {
    /// Looks for the best scales of every group of a block.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub(crate) fn search(
        plan: &Plan<'_>,
        checkpoint: &Checkpoint,
        (block, layers): (usize, &[&Layer<'_>]),
        calibrator: &mut Calibrator<'_>,
        statistics: &Statistics,
        spec: &AffineSpec,
    ) -> Result<Folding, Error> {
        let mut folding = Folding::default();
        let architecture = plan.architecture;
        // OPT's norms come after the sums in its smallest models: they make nothing there.
        let after = plan.config["do_layer_norm_before"] == false;
        for group in groups(architecture) {
            let found = |within: &&str| {
                let named = |layer: &&&Layer<'_>| {
                    architecture
                        .block(layer.name)
                        .is_some_and(|(_, name)| name == *within)
                };
                layers.iter().find(named).copied()
            };
            let readers: Vec<&Layer<'_>> = group.readers.iter().filter_map(found).collect();
            let Some(first) = readers.first() else {
                continue;
            };
            let Some(prefix) = first.name.strip_suffix(group.readers[0]) else {
                continue; // the group's first layer is not quantized
            };
            let maker = format!("{prefix}{}", group.maker);
            let layer = found(&group.maker);
            let norm = group.maker.contains("norm") || group.maker.starts_with("ln_");
            let fits = match layer {
                Some(maker) => maker.rows == first.cols,
                None => norm && !after && checkpoint.tensor(&format!("{maker}.weight")).is_some(),
            };
            let seen = statistics.layer(first.name);
            let Some((seen, gram)) = seen.and_then(|seen| Some((seen, seen.gram()?))) else {
                continue;
            };
            if !fits || readers.len() != group.readers.len() {
                continue;
            }
            let through = group.through.and_then(|through| found(&through));
            let tried = Tried::new(plan, &readers, &seen.mean_abs(), spec)?;
            let losses = match through {
                Some(through) => tried.through(plan, block, through, calibrator)?,
                None => awq::losses(&tried.weights(), &tried.scales, gram, spec),
            };
            let scales = tried.best(&losses);
            for reader in &readers {
                folding
                    .inputs
                    .insert(reader.name.to_owned(), scales.clone());
            }
            let kinds: &[&str] = if layer.is_some() {
                &["bias"]
            } else {
                &["weight", "bias"]
            };
            if layer.is_some() {
                folding.outputs.insert(maker.clone(), scales.clone());
            }
            for kind in kinds {
                let name = format!("{maker}.{kind}");
                if let Some(tensor) = checkpoint.tensor(&name) {
                    let values = read_values(tensor)?;
                    let divided = values.iter().zip(&scales).map(|(v, s)| v / s);
                    folding.vectors.insert(name, divided.collect());
                }
            }
        }
        Ok(folding)
    }

    /// A layer's weights with its scales in them.
    pub(crate) fn apply(&self, layer: &str, weights: &mut Matrix) {
        self.each(layer, weights, |weight, input, output| {
            weight * input / output
        });
    }

    /// The weights that stand in the unscaled model for a layer's scaled ones.
    pub(crate) fn undo(&self, layer: &str, weights: &mut Matrix) {
        self.each(layer, weights, |weight, input, output| {
            weight / input * output
        });
    }

    fn each(&self, layer: &str, weights: &mut Matrix, f: impl Fn(f32, f32, f32) -> f32) {
        let (inputs, outputs) = (self.inputs.get(layer), self.outputs.get(layer));
        for row in 0..weights.rows() {
            let output = outputs.map_or(1.0, |scales| scales[row]);
            for (col, weight) in weights.row_mut(row).iter_mut().enumerate() {
                *weight = f(*weight, inputs.map_or(1.0, |scales| scales[col]), output);
            }
        }
    }
}

/// The scales that are tried for the inputs of some layers.
struct Tried<'a> {
    names: Vec<&'a str>,
    weights: Vec<Matrix>,
    scales: Vec<Vec<f32>>,
    spec: &'a AffineSpec,
}

impl<'a> Tried<'a> {
    fn new(
        plan: &Plan<'_>,
        readers: &[&'a Layer<'_>],
        mean_abs: &[f64],
        spec: &'a AffineSpec,
    ) -> Result<Tried<'a>, Error> {
        let read = |reader: &&Layer<'_>| read_matrix(reader.tensor, plan.architecture.transposed());
        let weights = readers.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let scales = awq::candidates(&weights.iter().collect::<Vec<_>>(), mean_abs, spec);
        Ok(Tried {
            names: readers.iter().map(|reader| reader.name).collect(),
            weights,
            scales,
            spec,
        })
    }

    fn weights(&self) -> Vec<&Matrix> {
        self.weights.iter().collect()
    }

    /// By how much the outputs of the layer that the others lead to change.
    fn through(
        &self,
        plan: &Plan<'_>,
        block: usize,
        through: &Layer<'_>,
        calibrator: &mut Calibrator<'_>,
    ) -> Result<Vec<f64>, Error> {
        let after = read_matrix(through.tensor, plan.architecture.transposed())?;
        let after = Dense::from_f32(after.data(), after.cols());
        let variants = self.scales.iter().map(|scales| {
            let layers = self.weights.iter();
            layers
                .map(|layer| awq::with_scales(layer, scales, self.spec))
                .collect()
        });
        calibrator.trials(
            block,
            (&self.names, &self.weights()),
            (through.name, &after),
            variants,
        )
    }

    fn best(mut self, losses: &[f64]) -> Vec<f32> {
        let places = 0..self.scales.len();
        let best = places.min_by(|&a, &b| losses[a].total_cmp(&losses[b]));
        self.scales.swap_remove(best.unwrap_or(0))
    }
}
