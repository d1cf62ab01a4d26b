//! What becomes of every tensor of a checkpoint, decided from its configuration and headers alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sparse_checkpoint::{Checkpoint, Dtype, TensorRef, TensorSpec};

use crate::choose::{Choice, choose};
use crate::format::{hqq, quanto};
use crate::gguf::{GgufPlan, Mixture};
use crate::preset::{Format, Preset};
use crate::scheme::Scheme;
use crate::{Architecture, Error, method};

/// What is to be done.
#[derive(Clone, Debug)]
pub struct QuantSpec {
    /// Method, bits, group size.
    pub preset: Preset,
    /// The format to write.
    pub format: Format,
}

/// What becomes of every tensor.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub architecture: Architecture,
    pub config: Value,
    pub scheme: Scheme,
    /// The type of tensors that are not quantized.
    pub dtype: Dtype,
    pub layers: Vec<Layer<'a>>,
    pub carried: Vec<Carried<'a>>,
    /// Layer or tensor -> why it is not quantized, or not kept.
    pub skipped: BTreeMap<String, String>,
    embedding: Option<TensorRef<'a>>,
    /// Layers that the format cannot hold.
    pub kept: Vec<String>,
    /// What differs from what the preset says, and why.
    pub notes: Vec<String>,
    /// Weights that share a scale; `None` for a whole row.
    pub group_size: Option<usize>,
}

/// A layer that is quantized.
#[derive(Debug)]
pub(crate) struct Layer<'a> {
    /// Its name: that of its weight without `.weight`.
    pub name: &'a str,
    pub tensor: TensorRef<'a>,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// The tensors that it becomes.
    pub specs: Vec<TensorSpec>,
}

/// A tensor that is kept, at most in another type.
#[derive(Debug)]
pub(crate) struct Carried<'a> {
    pub tensor: TensorRef<'a>,
    pub spec: TensorSpec,
}

impl<'a> Plan<'a> {
    /// Plans for a checkpoint.
    ///
    /// # Errors
    /// If its architecture is not known, it is quantized already, or its tensors are not those of
    /// its architecture.
    pub(crate) fn new(checkpoint: &'a Checkpoint, spec: &QuantSpec) -> Result<Plan<'a>, Error> {
        let config = checkpoint.config()?;
        let config_path = checkpoint.root().join("config.json");
        let quanto = checkpoint.file(quanto::MAP).map(|_| "quanto".to_owned());
        if let Some(found) = quantized_by(&config).or(quanto) {
            return Err(Error::AlreadyQuantized {
                path: checkpoint.root().to_owned(),
                found,
            });
        }
        let architecture = Architecture::of(&config, &config_path)?;
        let tensors = model_tensors(checkpoint);
        if let Some(found) = tensors.iter().find(|tensor| is_packed(tensor.name())) {
            return Err(Error::AlreadyQuantized {
                path: checkpoint.root().to_owned(),
                found: format!("it has {}", found.name()),
            });
        }
        let widths = widths(architecture, &tensors);
        let Choice {
            scheme,
            group_size,
            notes,
        } = choose(&spec.preset, spec.format, architecture, &widths)?;
        let dtype = match scheme {
            Scheme::Half => Dtype::F16,
            _ => other_dtype(&tensors),
        };
        let mut plan = Plan {
            architecture,
            config,
            scheme,
            dtype,
            layers: Vec::new(),
            carried: Vec::new(),
            skipped: BTreeMap::new(),
            embedding: tensors
                .iter()
                .find(|tensor| architecture.is_embedding(tensor.name()))
                .copied(),
            kept: Vec::new(),
            notes,
            group_size,
        };
        for tensor in tensors {
            plan.place(tensor)?;
        }
        if plan.layers.is_empty() && !matches!(scheme, Scheme::Half | Scheme::Gguf(_)) {
            return Err(plan.nothing_to_do(checkpoint, spec));
        }
        if spec.format == Format::Quanto && architecture == Architecture::GptNeoX && !plan.is_tied()
        {
            return Err(Error::Unsupported {
                what: format!("{} for a GPT-NeoX with a head of its own", spec.preset.name),
                reason: "optimum-quanto looks for the head under another name and leaves it unset"
                    .to_owned(),
                instead: "use bnb_int8, bnb_nf4 or hqq_4bit".to_owned(),
            });
        }
        plan.settle_groups();
        plan.say_what_stays();
        plan.say_what_clients_mind();
        Ok(plan)
    }

    /// Why no layer can be quantized.
    fn nothing_to_do(&self, checkpoint: &Checkpoint, spec: &QuantSpec) -> Error {
        let kept = self.kept.first();
        match kept.and_then(|layer| Some((layer, self.skipped.get(layer)?))) {
            Some((layer, obstacle)) => Error::Unsupported {
                what: format!("{} as {}", spec.preset.name, spec.format),
                reason: format!("no layer can be stored so, as {layer}: {obstacle}"),
                instead: "use bnb_nf4, or another --format, --bits or --group-size".to_owned(),
            },
            None => Error::NoLayers {
                path: checkpoint.root().to_owned(),
                architecture: self.architecture.name(),
            },
        }
    }

    /// Says where a client needs help with what is written, or hardware.
    fn say_what_clients_mind(&mut self) {
        let odd =
            |layer: &Layer<'_>| !layer.rows.is_multiple_of(64) || !layer.cols.is_multiple_of(64);
        if matches!(self.scheme, Scheme::Nf4 { .. }) && self.layers.iter().any(odd) {
            self.notes.push(
                "some layers have sides that are no multiples of 64: bitsandbytes runs these on a \
                 GPU, but not on a CPU"
                    .to_owned(),
            );
        }
        if matches!(self.scheme, Scheme::Gptq { .. }) && !self.kept.is_empty() {
            let count = self.kept.len();
            self.notes.push(format!(
                "{count} layers stay as they are, as the format cannot hold them: load the folder \
                 with GPTQModel.load; transformers alone does not read which"
            ));
        }
    }

    /// Says what sizes groups really have where a format leaves them to each layer's shape.
    fn settle_groups(&mut self) {
        let of_layer = |layer: &Layer<'_>| match self.scheme {
            Scheme::Hqq { bits, group_size } => {
                hqq::group_size(layer.rows, layer.cols, bits, group_size)
            }
            // A row may be as long as a group.
            Scheme::Quanto { bits: 4 } => {
                method::quanto::group_size(layer.cols).or(Some(layer.cols))
            }
            _ => self.group_size,
        };
        let sizes: BTreeSet<Option<usize>> = self.layers.iter().map(of_layer).collect();
        let wanted = self.group_size;
        if sizes.iter().all(|&size| size == wanted) {
            return;
        }
        let shown = |size: &Option<usize>| size.map_or("a row".to_owned(), |size| size.to_string());
        let found: Vec<String> = sizes.iter().map(shown).collect();
        self.notes.push(format!(
            "groups of {} instead of {}, as the layers' shapes allow",
            found.join(" and "),
            shown(&wanted)
        ));
        self.group_size = sizes.into_iter().max().flatten();
        if let (Scheme::Hqq { group_size, .. }, Some(largest)) = (&mut self.scheme, self.group_size)
        {
            *group_size = largest;
        }
    }

    fn place(&mut self, tensor: TensorRef<'a>) -> Result<(), Error> {
        let name = tensor.name();
        if self.architecture.is_buffer(name) {
            let reason = "a constant that loaders make themselves: left out";
            self.skipped.insert(name.to_owned(), reason.to_owned());
            return Ok(());
        }
        if self.architecture.is_head(name) && self.is_tied() && self.is_embedding(tensor)? {
            let reason = "tied to the embedding: left out";
            self.skipped.insert(name.to_owned(), reason.to_owned());
            return Ok(());
        }
        match self.architecture.layer(name) {
            Some(layer) if !matches!(self.scheme, Scheme::Half | Scheme::Gguf(_)) => {
                let (rows, cols) = self.layer_shape(&tensor)?;
                if let Some(obstacle) = self.scheme.obstacle(rows, cols) {
                    self.skipped.insert(layer.to_owned(), obstacle);
                    self.kept.push(layer.to_owned());
                    self.carry(tensor);
                    return Ok(());
                }
                let specs = self.scheme.specs(layer, rows, cols, self.dtype);
                self.layers.push(Layer {
                    name: layer,
                    tensor,
                    rows,
                    cols,
                    specs,
                });
            }
            _ => self.carry(tensor),
        }
        Ok(())
    }

    /// Whether a head is the embedding once more: one that differs is used by loaders, whatever the
    /// configuration says.
    fn is_embedding(&self, head: TensorRef<'a>) -> Result<bool, Error> {
        let embedding = self.embedding.filter(|embedding| {
            embedding.shape() == head.shape() && embedding.dtype() == head.dtype()
        });
        match embedding {
            Some(embedding) => Ok(head.same_bytes(&embedding)?),
            None => Ok(self.embedding.is_none()),
        }
    }

    fn carry(&mut self, tensor: TensorRef<'a>) {
        let dtype = match tensor.dtype() {
            Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64 => self.dtype,
            other => other,
        };
        let spec = TensorSpec::new(tensor.name(), dtype, tensor.shape());
        self.carried.push(Carried { tensor, spec });
    }

    /// Outputs and inputs of a layer's weight.
    fn layer_shape(&self, tensor: &TensorRef<'_>) -> Result<(usize, usize), Error> {
        let wrong = |found: String| Error::Tensor {
            path: tensor.shard().full_path().to_owned(),
            tensor: tensor.name().to_owned(),
            expected: "a matrix of F16, BF16, F32 or F64".to_owned(),
            found,
        };
        let &[rows, cols] = tensor.shape() else {
            return Err(wrong(format!("shape {:?}", tensor.shape())));
        };
        let known = matches!(
            tensor.dtype(),
            Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64
        );
        if !known || rows == 0 || cols == 0 {
            return Err(wrong(format!("{rows} x {cols} of {}", tensor.dtype())));
        }
        let (rows, cols) = (rows as usize, cols as usize); // their product is within the file
        Ok(if self.architecture.transposed() {
            (cols, rows)
        } else {
            (rows, cols)
        })
    }

    /// Whether the output head is the embedding.
    pub(crate) fn is_tied(&self) -> bool {
        let default = matches!(self.architecture, Architecture::Gpt2 | Architecture::Opt);
        self.config["tie_word_embeddings"]
            .as_bool()
            .unwrap_or(default)
    }

    fn say_what_stays(&mut self) {
        if matches!(self.scheme, Scheme::Half | Scheme::Gguf(_)) {
            return;
        }
        for carried in &self.carried {
            let name = carried.tensor.name();
            let layer = self.architecture.layer(name);
            if self.skipped.contains_key(layer.unwrap_or(name)) {
                continue;
            }
            if self.architecture.is_head(name) {
                let reason = format!("the output head stays {}", carried.spec.dtype);
                self.skipped.insert(name.to_owned(), reason);
            } else if carried.tensor.shape().len() == 2 {
                let reason = format!("an embedding stays {}", carried.spec.dtype);
                self.skipped.insert(name.to_owned(), reason);
            }
        }
    }

    /// What a GGUF file would hold.
    ///
    /// # Errors
    /// If llama.cpp could not run the model.
    pub(crate) fn gguf(
        &self,
        checkpoint: &Checkpoint,
        mixture: Mixture,
    ) -> Result<GgufPlan<'a>, Error> {
        let tensors: Vec<TensorRef<'a>> =
            self.carried.iter().map(|carried| carried.tensor).collect();
        GgufPlan::new(
            checkpoint,
            self.architecture,
            &self.config,
            &tensors,
            mixture,
        )
    }

    /// Everything that is written, layers first.
    pub(crate) fn specs(&self) -> Vec<TensorSpec> {
        let layers = self.layers.iter().flat_map(|layer| layer.specs.clone());
        let carried = self.carried.iter().map(|carried| carried.spec.clone());
        layers.chain(carried).collect()
    }

    /// Weights in the layers that are quantized.
    pub(crate) fn layer_weights(&self) -> u64 {
        self.layers
            .iter()
            .map(|layer| layer.tensor.elements())
            .sum()
    }

    /// Weights of the whole model, tied ones counted once.
    pub(crate) fn parameters(&self) -> u64 {
        let carried = self.carried.iter().map(|carried| carried.tensor.elements());
        self.layer_weights() + carried.sum::<u64>()
    }

    /// Bytes that the quantized layers take.
    pub(crate) fn layer_bytes(&self) -> u64 {
        let specs = self.layers.iter().flat_map(|layer| &layer.specs);
        specs.filter_map(|spec| spec.bytes().ok()).sum()
    }
}

/// The tensors of the model itself: those of shards beside `config.json`, each name once.
fn model_tensors(checkpoint: &Checkpoint) -> Vec<TensorRef<'_>> {
    let mut tensors: Vec<TensorRef<'_>> = checkpoint
        .tensors()
        .filter(|tensor| tensor.shard().path().parent().is_none())
        .filter_map(|tensor| checkpoint.tensor(tensor.name()))
        .collect();
    let mut seen = std::collections::HashSet::new();
    tensors.retain(|tensor| seen.insert(tensor.name().to_owned()));
    tensors
}

/// The different numbers of inputs that layers have.
fn widths(architecture: Architecture, tensors: &[TensorRef<'_>]) -> Vec<usize> {
    let inputs = usize::from(!architecture.transposed());
    let mut widths: Vec<usize> = tensors
        .iter()
        .filter(|tensor| architecture.layer(tensor.name()).is_some())
        .filter_map(|tensor| tensor.shape().get(inputs).map(|&width| width as usize))
        .collect();
    widths.sort_unstable();
    widths.dedup();
    widths
}

/// 16 bits of the kind that most weights have already.
fn other_dtype(tensors: &[TensorRef<'_>]) -> Dtype {
    let weights = |dtype| {
        let of_type = tensors.iter().filter(move |tensor| tensor.dtype() == dtype);
        of_type.map(|tensor| tensor.elements()).sum::<u64>()
    };
    let others = [Dtype::F16, Dtype::F32, Dtype::F64].map(weights);
    if weights(Dtype::BF16) > others.iter().sum() {
        Dtype::BF16
    } else {
        Dtype::F16
    }
}

/// Whether a tensor is a part of a quantized layer, as the formats that are known here name them.
fn is_packed(tensor: &str) -> bool {
    let parts = [
        ".qweight",
        ".weight_packed",
        ".W_q",
        ".SCB",
        ".weight.absmax",
        ".weight._data",
    ];
    parts.iter().any(|part| tensor.ends_with(part))
}

/// What a configuration says the checkpoint was quantized by.
fn quantized_by(config: &Value) -> Option<String> {
    let found = ["quantization_config", "compression_config"]
        .iter()
        .map(|key| &config[*key])
        .find(|value| !value.is_null())?;
    let method = found["quant_method"]
        .as_str()
        .unwrap_or("by an unnamed method");
    Some(method.to_owned())
}
