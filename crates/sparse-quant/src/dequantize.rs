//! From a quantized checkpoint to a plain one: every layer as the weights that its codes stand for.

use std::collections::HashSet;
use std::path::Path;

use sparse_checkpoint::{
    Checkpoint, Dtype, OutputDir, TensorRef, TensorSpec, WriteOptions, write_shards,
};

use crate::format::quanto;
use crate::method::quanto::group_size as quanto_group_size;
use crate::plan::Carried;
use crate::quantize::Options;
use crate::scheme::{Packed, Scheme};
use crate::weights::from_f32;
use crate::{Architecture, Error, Matrix, Progress, carry};

/// Writes `checkpoint`, which is quantized, to the folder `output` as a plain checkpoint of f32.
///
/// Returns the number of layers.
///
/// # Errors
/// If the checkpoint is not quantized, or in a format that is not known, or damaged, or the output
/// exists or cannot be written.
pub fn dequantize(
    checkpoint: &Checkpoint,
    output: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<usize, Error> {
    let reader = Quantized::open(checkpoint)?;
    let mut specs = Vec::new();
    for layer in &reader.layers {
        let (rows, cols) = reader.shape(layer)?;
        let shape = if reader.architecture.transposed() {
            [cols, rows]
        } else {
            [rows, cols]
        };
        specs.push(TensorSpec::new(
            format!("{layer}.weight"),
            Dtype::F32,
            shape.map(|n| n as u64),
        ));
    }
    let others: Vec<Carried<'_>> = reader.others().collect();
    specs.extend(others.iter().map(|carried| carried.spec.clone()));
    let folder = OutputDir::create(output, options.existing)?;
    let write = WriteOptions {
        max_shard_bytes: Some(options.max_shard_bytes),
        ..WriteOptions::default()
    };
    let (mut done, total) = (0, specs.len() as u64);
    crate::pool::with_threads(options.threads, || {
        write_shards(folder.path(), &specs, &write, |spec, out| {
            if progress.cancelled() {
                return Err(Error::Interrupted);
            }
            progress.step("dequantize", done, total);
            done += 1;
            if let Some(carried) = others.iter().find(|c| c.spec.name == spec.name) {
                return carry::tensor(carried, out);
            }
            let layer = spec.name.strip_suffix(".weight").unwrap_or(&spec.name);
            let weights = reader.stored_weights(layer)?;
            let bytes = from_f32(Dtype::F32, weights.data()).unwrap_or_default();
            out.write_all(&bytes)?;
            Ok(())
        })
    })?;
    let mut config = reader.config.clone();
    if let Some(members) = config.as_object_mut() {
        members.remove("quantization_config");
        members.insert("dtype".to_owned(), "float32".into());
        members.remove("torch_dtype");
    }
    carry::put(
        folder.path(),
        "config.json",
        carry::json_text(&config).as_bytes(),
    )?;
    for file in carry::plain_files(checkpoint) {
        carry::copy(folder.path(), file)?;
    }
    folder.commit()?;
    Ok(reader.layers.len())
}

/// Enough for an entry per layer of any model.
const MAX_MAP_BYTES: u64 = 16 << 20;

/// A quantized checkpoint, open for reading layer by layer.
#[derive(Debug)]
pub struct Quantized<'a> {
    checkpoint: &'a Checkpoint,
    config: serde_json::Value,
    architecture: Architecture,
    scheme: Scheme,
    /// Names of the quantized layers, in file order.
    layers: Vec<String>,
    names: HashSet<String>,
}

impl<'a> Quantized<'a> {
    /// Opens a checkpoint that says in its configuration how it was quantized.
    ///
    /// # Errors
    /// If it does not, or in a way that is not known.
    pub fn open(checkpoint: &'a Checkpoint) -> Result<Quantized<'a>, Error> {
        let config = checkpoint.config()?;
        let path = checkpoint.root().join("config.json");
        let architecture = Architecture::of(&config, &path)?;
        let scheme = match checkpoint.file(quanto::MAP) {
            Some(file) => {
                let map = serde_json::from_slice(&file.read(MAX_MAP_BYTES)?).unwrap_or_default();
                Scheme::from_quanto_map(&map).ok_or("it names no known kind of codes".to_owned())
            }
            None if config["quantization_config"].is_null() => {
                return Err(Error::NotQuantized {
                    path: checkpoint.root().to_owned(),
                });
            }
            None => Scheme::from_config(&config["quantization_config"]),
        };
        let scheme = scheme
            .map_err(|reason| crate::format::damaged(&path, "quantization_config", reason))?;
        let marker = scheme.marker();
        let layers: Vec<String> = checkpoint
            .tensors()
            .filter_map(|tensor| tensor.name().strip_suffix(marker))
            .map(str::to_owned)
            .collect();
        Ok(Quantized {
            checkpoint,
            config,
            architecture,
            scheme,
            names: layers.iter().cloned().collect(),
            layers,
        })
    }

    /// Names of the quantized layers, without `.weight`.
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    /// Whether a layer, named without `.weight`, is quantized.
    pub fn has(&self, layer: &str) -> bool {
        self.names.contains(layer)
    }

    /// A layer's codes and scales.
    ///
    /// # Errors
    /// If the layer is not there or damaged.
    pub fn packed(&self, layer: &str) -> Result<Packed, Error> {
        self.scheme
            .read(self.checkpoint, layer, self.shape_of(layer))
    }

    /// Outputs and inputs of a layer by the configuration, for formats that do not store them.
    fn shape_of(&self, layer: &str) -> Option<(usize, usize)> {
        if self.scheme != (Scheme::Quanto { bits: 4 }) {
            return None;
        }
        let (_, within) = self.architecture.block(layer)?;
        let cols = self.architecture.inputs(&self.config, within)?;
        let scales = self.checkpoint.tensor(&format!("{layer}.weight._scale"))?;
        let groups = usize::try_from(scales.elements()).ok()?;
        let size = quanto_group_size(cols).unwrap_or(cols);
        Some((groups.checked_mul(size)?.checked_div(cols)?, cols))
    }

    /// The weights that a layer stands for, `[outputs, inputs]`.
    ///
    /// # Errors
    /// If the layer is not there or damaged.
    pub fn weights(&self, layer: &str) -> Result<Matrix, Error> {
        Ok(self.packed(layer)?.dequantize())
    }

    /// Outputs and inputs of a layer.
    fn shape(&self, layer: &str) -> Result<(usize, usize), Error> {
        let weights = self.weights(layer)?;
        Ok((weights.rows(), weights.cols()))
    }

    /// The weights the way the architecture stores them.
    fn stored_weights(&self, layer: &str) -> Result<Matrix, Error> {
        let weights = self.weights(layer)?;
        Ok(if self.architecture.transposed() {
            weights.transposed()
        } else {
            weights
        })
    }

    fn others(&self) -> impl Iterator<Item = Carried<'a>> {
        let ours = |tensor: &TensorRef<'_>| {
            self.layers.iter().any(|layer| {
                let rest = tensor.name().strip_prefix(layer.as_str());
                rest.is_some_and(|rest| rest.starts_with('.') && rest != ".bias")
            })
        };
        self.checkpoint
            .tensors()
            .filter(move |tensor| !ours(tensor))
            .map(|tensor| Carried {
                tensor,
                spec: TensorSpec::new(tensor.name(), Dtype::F32, tensor.shape()),
            })
    }
}
