//! What a GGUF file will hold, decided from configuration, tokenizer and headers.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use sparse_checkpoint::{Checkpoint, TensorRef};
use sparse_engine::ModelConfig;

use super::container::{ALIGNMENT, Entry, Value, head};
use super::names::{Role, Rows, rename};
use super::{Mixture, metadata, tokenizer};
use crate::method::ggml::GgmlType;
use crate::{Architecture, Error};

/// The name of the file in the output folder.
pub(crate) const FILE: &str = "model.gguf";

/// The tensor of factors that rotations are divided by.
pub(super) const SLOWED: &str = "rope_freqs.weight";

/// What will be written.
#[derive(Debug)]
pub(crate) struct GgufPlan<'a> {
    pub(super) pairs: Vec<(String, Value)>,
    pub(super) tensors: Vec<Planned<'a>>,
    pub(super) architecture: Architecture,
    /// What rotations are slowed down by: the last tensor, where there is one.
    pub(super) slowed: Option<(Entry, Vec<u8>)>,
    /// Type -> tensors that have it because the type meant for them does not fit their width.
    pub fallbacks: BTreeMap<String, usize>,
}

/// A tensor of the file.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    pub source: TensorRef<'a>,
    pub entry: Entry,
    /// Outputs and inputs.
    pub rows: usize,
    pub cols: usize,
    pub moved: Rows,
    /// The layer's name, if it is one: calibration knows it by that.
    pub layer: Option<&'a str>,
}

impl<'a> GgufPlan<'a> {
    /// Plans for a checkpoint's tensors, without buffers and tied heads.
    ///
    /// # Errors
    /// If llama.cpp could not run the model.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        architecture: Architecture,
        config: &Json,
        tensors: &[TensorRef<'a>],
        mixture: Mixture,
    ) -> Result<GgufPlan<'a>, Error> {
        let path = checkpoint.root().join("config.json");
        let folder = checkpoint.root().file_name().and_then(|name| name.to_str());
        let model = ModelConfig::read(checkpoint)?;
        let mut pairs = metadata::pairs(
            architecture,
            (config, &model),
            &path,
            mixture.file_type,
            folder.unwrap_or("model"),
        )?;
        let renamed: Vec<_> = tensors
            .iter()
            .map(|tensor| match rename(architecture, tensor.name()) {
                Some((name, block, role)) => Ok((*tensor, name, block, role)),
                None => Err(metadata::unsupported(
                    &format!("tensor {}", tensor.name()),
                    "llama.cpp has no tensor of this kind",
                )),
            })
            .collect::<Result<_, Error>>()?;
        let blocks = renamed
            .iter()
            .filter_map(|one| one.2)
            .max()
            .map_or(0, |last| last + 1);
        let tied = !renamed.iter().any(|(_, name, ..)| name == "output.weight");
        let vocabulary = renamed
            .iter()
            .find(|(_, name, ..)| name == "token_embd.weight")
            .and_then(|(tensor, ..)| tensor.shape().first().copied());
        pairs.extend(tokenizer::pairs(
            checkpoint,
            config,
            vocabulary.unwrap_or(0) as usize,
        )?);
        let mut plan = GgufPlan {
            pairs,
            tensors: Vec::new(),
            architecture,
            slowed: None,
            fallbacks: BTreeMap::new(),
        };
        for (tensor, name, block, role) in renamed {
            let role = match role {
                Role::Embedding if tied => Role::Output,
                role => role,
            };
            plan.add(
                config,
                tensor,
                name,
                block.map(|block| (block, blocks)),
                role,
                mixture,
            )?;
        }
        plan.tensors
            .sort_by_key(|planned| order(&planned.entry.name));
        let mut offset = 0;
        for planned in &mut plan.tensors {
            planned.entry.offset = offset;
            offset = (offset + planned.bytes()).next_multiple_of(ALIGNMENT);
        }
        plan.slowed = metadata::slowed(&model).map(|factors| {
            let entry = Entry {
                name: SLOWED.to_owned(),
                dims: vec![factors.len() as u64],
                kind: GgmlType::F32,
                offset,
            };
            (
                entry,
                factors.into_iter().flat_map(f32::to_le_bytes).collect(),
            )
        });
        Ok(plan)
    }

    fn add(
        &mut self,
        config: &Json,
        tensor: TensorRef<'a>,
        name: String,
        block: Option<(usize, usize)>,
        role: Role,
        mixture: Mixture,
    ) -> Result<(), Error> {
        let layer = self.architecture.layer(tensor.name());
        let size = |at: usize| tensor.shape()[at] as usize; // products are within the file
        let (rows, cols) = match tensor.shape().len() {
            1 => (1, size(0)),
            2 if layer.is_some() && self.architecture.transposed() => (size(1), size(0)),
            2 => (size(0), size(1)),
            _ => {
                return Err(Error::Tensor {
                    path: tensor.shard().full_path().to_owned(),
                    tensor: tensor.name().to_owned(),
                    expected: "a vector or a matrix".to_owned(),
                    found: format!("shape {:?}", tensor.shape()),
                });
            }
        };
        let kind = if role == Role::Full {
            GgmlType::F32
        } else {
            let (block, blocks) = block.unwrap_or((0, 1));
            let meant = mixture.of(role, block, blocks);
            // A head that does not fit goes to Q8_0 whatever was meant for it.
            let meant = match role {
                Role::Output if !cols.is_multiple_of(mixture.file_type.main().block().0) => {
                    GgmlType::Q8_0
                }
                _ => meant,
            };
            let kind = meant.fitting(cols);
            if kind != meant {
                *self
                    .fallbacks
                    .entry(format!("{meant:?} -> {kind:?}"))
                    .or_default() += 1;
            }
            kind
        };
        let mut dims = vec![cols as u64];
        if tensor.shape().len() == 2 {
            dims.push(rows as u64);
        }
        self.tensors.push(Planned {
            source: tensor,
            moved: self.moved(config, tensor.name(), rows.max(cols))?,
            entry: Entry {
                name,
                dims,
                kind,
                offset: 0,
            },
            rows,
            cols,
            layer,
        });
        Ok(())
    }

    /// How a tensor's rows, or a bias' numbers, move; there are `count` of them.
    fn moved(&self, config: &Json, tensor: &str, count: usize) -> Result<Rows, Error> {
        let number = |key: &str| config[key].as_u64().map(|number| number as usize);
        let heads = number("num_attention_heads").unwrap_or(1);
        let within = self
            .architecture
            .block(tensor)
            .map_or("", |(_, within)| within);
        let interleaves = matches!(
            config["model_type"].as_str(),
            Some("llama" | "mistral" | "smollm3")
        );
        let moved = match (
            self.architecture,
            within.rsplit_once('.').map_or("", |(stem, _)| stem),
        ) {
            (Architecture::Llama, "self_attn.q_proj") if interleaves => Rows::Interleaved { heads },
            (Architecture::Llama, "self_attn.k_proj") if interleaves => Rows::Interleaved {
                heads: number("num_key_value_heads").unwrap_or(heads),
            },
            (Architecture::GptNeoX, "attention.query_key_value") => Rows::Grouped { heads },
            _ => Rows::Kept,
        };
        let whole = match moved {
            Rows::Kept => 1,
            Rows::Interleaved { heads } => 2 * heads,
            Rows::Grouped { heads } => 3 * heads,
        };
        if whole == 0 || !count.is_multiple_of(whole) {
            return Err(metadata::unsupported(
                tensor,
                "its rows are no whole number of heads",
            ));
        }
        Ok(moved)
    }

    /// Everything before the data.
    pub(super) fn head(&self) -> Vec<u8> {
        let mut entries: Vec<Entry> = self.tensors.iter().map(|one| one.entry.clone()).collect();
        entries.extend(self.slowed.iter().map(|(entry, _)| entry.clone()));
        head(&self.pairs, &entries)
    }

    /// Bytes of the file.
    pub(crate) fn file_bytes(&self) -> u64 {
        let last = match (&self.slowed, self.tensors.last()) {
            (Some((entry, bytes)), _) => entry.offset + bytes.len() as u64,
            (None, Some(last)) => last.entry.offset + last.bytes(),
            (None, None) => 0,
        };
        self.head().len() as u64 + last.next_multiple_of(ALIGNMENT)
    }

    /// Weights of tensors that are quantized, and bytes that they take.
    pub(crate) fn quantized(&self) -> (u64, u64) {
        let quantized = self
            .tensors
            .iter()
            .filter(|one| one.entry.kind.block().0 > 1);
        quantized.fold((0, 0), |(weights, bytes), one| {
            (weights + one.source.elements(), bytes + one.bytes())
        })
    }

    /// Whether an importance matrix changes anything.
    pub(crate) fn heeds_importance(&self) -> bool {
        let heeds = |kind| !matches!(kind, GgmlType::Q8_0 | GgmlType::F16 | GgmlType::F32);
        let mut layers = self.tensors.iter().filter(|one| one.layer.is_some());
        layers.any(|one| heeds(one.entry.kind))
    }

    /// How many layers of the blocks are in it.
    pub(crate) fn layers(&self) -> usize {
        self.tensors
            .iter()
            .filter(|one| one.layer.is_some())
            .count()
    }
}

impl Planned<'_> {
    pub(super) fn bytes(&self) -> u64 {
        (self.rows * self.entry.kind.row_bytes(self.cols)) as u64
    }
}

/// Embeddings, blocks in order, what comes after them.
fn order(name: &str) -> (u8, usize, String) {
    let block = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(number, _)| number.parse().ok());
    match block {
        Some(block) => (1, block, name.to_owned()),
        None if name.contains("embd") => (0, 0, name.to_owned()),
        None => (2, 0, name.to_owned()),
    }
}
