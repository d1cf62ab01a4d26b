//! From a checkpoint to a quantized one, a layer at a time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use half::f16;
use sparse_checkpoint::{Checkpoint, Existing, OutputDir, WriteOptions, write_shards};
use sparse_engine::LayerStatistics;

use crate::calibrate::{Calibration, Calibrator};
use crate::fold::Folding;
use crate::gguf::{self, FileType, Mixture};
use crate::method::affine::{Affine, AffineSpec};
use crate::method::gptq::Order;
use crate::method::{awq, gptq, hqq, int8, nf4, quanto, rtn};
use crate::plan::{Layer, Plan, QuantSpec};
use crate::preset::{Method, Variant};
use crate::scheme::{Packed, Scheme};
use crate::spool::Spool;
use crate::weights::read_matrix;
use crate::{Error, Matrix, Progress, carry};

/// How to work.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads to use, at least one.
    pub threads: usize,
    /// What to do about an output that exists.
    pub existing: Existing,
    /// Most bytes of tensor data in one file.
    pub max_shard_bytes: u64,
    /// What methods that look at a text look at. llama.cpp's types do so only if it is given.
    pub calibration: Option<Calibration>,
}

/// What hub uploads use.
pub const DEFAULT_SHARD_BYTES: u64 = 5_000_000_000;

/// What was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Bytes of all files of the original.
    pub original_bytes: u64,
    /// Bytes of all files written.
    pub quantized_bytes: u64,
    /// Weights of the whole model, tied ones counted once.
    pub parameters: u64,
    /// Bits stored per weight of the quantized layers, scales and all.
    pub effective_bits_per_weight: f64,
    /// Layers that were quantized.
    pub layers: usize,
    /// Layer or tensor -> why it was not quantized, or not kept.
    pub skipped: BTreeMap<String, String>,
    /// What differs from what the preset says, and why.
    pub notes: Vec<String>,
    /// Weights that share a scale; `None` for a whole row.
    pub group_size: Option<usize>,
    /// Wall time.
    pub seconds: f64,
}

impl Report {
    /// How many times smaller the output is.
    pub fn ratio(&self) -> f64 {
        self.original_bytes as f64 / self.quantized_bytes.max(1) as f64
    }
}

/// Quantizes `checkpoint` into the folder `output`, which appears when it is complete.
///
/// Memory holds one layer, whatever the model's size; methods that look at a text hold the embedding,
/// one block and what it makes of a few windows besides, and keep the text's rows in the output's
/// folder until they are done.
///
/// # Errors
/// If the checkpoint is of no known architecture, quantized already or not finite, or the output
/// exists or cannot be written. Nothing is left behind then.
pub fn quantize(
    checkpoint: &Checkpoint,
    output: &Path,
    spec: &QuantSpec,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report, Error> {
    let started = Instant::now();
    let mut plan = Plan::new(checkpoint, spec)?;
    let gguf = matches!(plan.scheme, Scheme::Gguf(_));
    if options.calibration.is_some() && !spec.preset.calibrated && !gguf {
        let name = spec.preset.name;
        plan.notes.push(format!(
            "{name} looks at no text: the one to calibrate on was not read"
        ));
    }
    if let Scheme::Gguf(file_type) = plan.scheme {
        return quantize_gguf(
            plan, file_type, checkpoint, output, options, progress, started,
        );
    }
    let folder = OutputDir::create(output, options.existing)?;
    let notes = crate::pool::with_threads(options.threads, || {
        write_folder(&plan, spec, checkpoint, folder.path(), options, progress)
    })?;
    let quantized_bytes = folder_bytes(folder.path())?;
    folder.commit()?;
    let layer_weights = plan.layer_weights();
    let effective_bits_per_weight = if plan.scheme == Scheme::Half {
        16.0
    } else {
        8.0 * plan.layer_bytes() as f64 / layer_weights.max(1) as f64
    };
    Ok(Report {
        original_bytes: checkpoint.total_bytes(),
        quantized_bytes,
        parameters: plan.parameters(),
        effective_bits_per_weight,
        layers: plan.layers.len(),
        skipped: plan.skipped,
        notes: plan.notes.into_iter().chain(notes).collect(),
        group_size: plan.group_size,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn quantize_gguf(
    plan: Plan<'_>,
    file_type: FileType,
    checkpoint: &Checkpoint,
    output: &Path,
    options: &Options,
    progress: &dyn Progress,
    started: Instant,
) -> Result<Report, Error> {
    let mixture = Mixture {
        file_type,
        weighted: options.calibration.is_some(),
    };
    let gguf = plan.gguf(checkpoint, mixture)?;
    let mut notes = plan.notes.clone();
    for (change, tensors) in &gguf.fallbacks {
        notes.push(format!(
            "{change} for {tensors} tensors whose rows are no whole blocks"
        ));
    }
    if options.calibration.is_some() && !gguf.heeds_importance() {
        notes.push(
            "these types weigh all inputs alike: the text to calibrate on was not read".to_owned(),
        );
    }
    if options.max_shard_bytes < gguf.file_bytes() {
        notes.push("a GGUF file is written whole, whatever its size".to_owned());
    }
    let folder = OutputDir::create(output, options.existing)?;
    let calibration = options.calibration.as_ref();
    let importance = match calibration.filter(|_| gguf.heeds_importance()) {
        Some(calibration) => crate::pool::with_threads(options.threads, || {
            importance(checkpoint, calibration, folder.path(), options, progress)
        })?,
        None => BTreeMap::new(),
    };
    let (mut done, total) = (0, plan.parameters());
    crate::pool::with_threads(options.threads, || {
        gguf::write(
            &gguf,
            &folder.path().join(gguf::FILE),
            |layer| importance.get(layer).cloned(),
            |weights| {
                step(progress, done, total)?;
                done += weights;
                Ok(())
            },
        )
    })?;
    for file in checkpoint
        .file("config.json")
        .into_iter()
        .chain(carry::plain_files(checkpoint))
    {
        carry::copy(folder.path(), file)?;
    }
    let quantized_bytes = folder_bytes(folder.path())?;
    folder.commit()?;
    let (weights, bytes) = gguf.quantized();
    Ok(Report {
        original_bytes: checkpoint.total_bytes(),
        quantized_bytes,
        parameters: total,
        effective_bits_per_weight: match weights {
            // All fell back to F16.
            0 => 16.0,
            weights => 8.0 * bytes as f64 / weights as f64,
        },
        layers: gguf.layers(),
        skipped: plan.skipped,
        notes,
        group_size: plan.group_size,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The importance matrix: the mean square of each input of each layer.
fn importance(
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    scratch: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<BTreeMap<String, Vec<f32>>, Error> {
    let mut calibrator = Calibrator::new(checkpoint, calibration, options.threads, scratch)?;
    let mut importance = BTreeMap::new();
    let blocks = calibrator.blocks();
    for block in 0..blocks {
        if progress.cancelled() {
            return Err(Error::Interrupted);
        }
        progress.step("calibrate", block as u64, blocks as u64);
        calibrator.enter(block)?;
        for (name, layer) in calibrator.observe_passing(block)?.layers() {
            let moments = layer
                .second_moment()
                .into_iter()
                .map(|moment| moment as f32);
            importance.insert(name.to_owned(), moments.collect());
        }
    }
    Ok(importance)
}

fn write_folder(
    plan: &Plan<'_>,
    spec: &QuantSpec,
    checkpoint: &Checkpoint,
    folder: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Vec<String>, Error> {
    let mut spool = Spool::create(folder)?;
    let total = plan.parameters();
    let mut notes = Vec::new();
    let mut folded = BTreeMap::new();
    let mut done = if spec.preset.calibrated {
        quantize_calibrated(
            plan,
            spec,
            checkpoint,
            folder,
            options,
            progress,
            &mut spool,
            &mut notes,
            &mut folded,
        )?
    } else {
        quantize_plain(plan, progress, &mut spool)?
    };
    let carried: BTreeMap<&str, _> = plan.carried.iter().map(|c| (c.tensor.name(), c)).collect();
    let write = WriteOptions {
        max_shard_bytes: Some(options.max_shard_bytes),
        ..WriteOptions::default()
    };
    write_shards(folder, &plan.specs(), &write, |spec, out| {
        if let Some(carried) = carried.get(spec.name.as_str()) {
            done += carried.tensor.elements();
            step(progress, done, total)?;
            return match folded.get(&spec.name) {
                Some(values) => carry::values(carried, values, out),
                None => carry::tensor(carried, out),
            };
        }
        spool.copy(&spec.name, out).map(|_| ())
    })?;
    drop(spool);
    for (name, text) in carry::configs(plan) {
        carry::put(folder, name, text.as_bytes())?;
    }
    for file in carry::plain_files(checkpoint) {
        carry::copy(folder, file)?;
    }
    Ok(notes)
}

/// Quantizes every layer by itself; returns how many weights that were.
fn quantize_plain(
    plan: &Plan<'_>,
    progress: &dyn Progress,
    spool: &mut Spool,
) -> Result<u64, Error> {
    let (mut done, total) = (0, plan.parameters());
    for layer in &plan.layers {
        step(progress, done, total)?;
        let weights = read_matrix(layer.tensor, plan.architecture.transposed())?;
        let packed = pack(plan, layer, &weights)?;
        for part in plan.scheme.parts(layer.name, &packed, plan.dtype) {
            spool.put(&part)?;
        }
        done += layer.tensor.elements();
    }
    Ok(done)
}

/// AWQ's last step: the range of each group, given the scaled inputs' second moments. Queries and
/// keys are not clipped: their products are too sensitive.
fn clip(
    layer: &Layer<'_>,
    weights: &Matrix,
    gram: &[f32],
    folding: &Folding,
    spec: &AffineSpec,
) -> Option<Affine> {
    let sensitive = ["q_proj", "k_proj", "c_attn", "query_key_value"];
    if sensitive.iter().any(|name| layer.name.ends_with(name)) {
        return Some(rtn::quantize(weights, spec));
    }
    let mut scaled = gram.to_vec();
    if let Some(scales) = folding.inputs.get(layer.name) {
        for (line, left) in scaled.chunks_exact_mut(layer.cols).zip(scales) {
            for (value, right) in line.iter_mut().zip(scales) {
                *value /= left * right;
            }
        }
    }
    Some(awq::quantize_clipped(weights, &scaled, spec))
}

/// Quantizes block by block what a text puts into each layer; returns how many weights that were.
#[allow(clippy::too_many_arguments)] // two of them are results
fn quantize_calibrated(
    plan: &Plan<'_>,
    spec: &QuantSpec,
    checkpoint: &Checkpoint,
    scratch: &Path,
    options: &Options,
    progress: &dyn Progress,
    spool: &mut Spool,
    notes: &mut Vec<String>,
    folded: &mut BTreeMap<String, Vec<f32>>,
) -> Result<u64, Error> {
    let (mut done, total) = (0, plan.parameters());
    step(progress, done, total)?;
    let default = Calibration::default();
    let calibration = options.calibration.as_ref().unwrap_or(&default);
    let mut calibrator = Calibrator::new(checkpoint, calibration, options.threads, scratch)?;
    let awq = spec.preset.method == Method::Awq;
    // AWQ looks for ranges itself, by what goes in: a search that takes all weights for equal would
    // clip the very ones that it scaled up.
    let affine = AffineSpec {
        search: !awq,
        ..plan.scheme.affine(plan.dtype)
    };
    let order = match spec.preset.variant {
        Variant::ActOrder => Order::Columns,
        _ => Order::Groups,
    };
    for block in 0..calibrator.blocks() {
        let layers: Vec<&Layer<'_>> = plan
            .layers
            .iter()
            .filter(|layer| {
                plan.architecture
                    .block(layer.name)
                    .is_some_and(|(number, _)| number == block)
            })
            .collect();
        calibrator.enter(block)?;
        // AWQ weighs the layers of a block against one another, so it sees them all at once; GPTQ
        // goes on from what the layers before have become.
        let (folding, whole, parts) = if awq {
            let seen = calibrator.observe(block)?;
            let within = (block, &layers[..]);
            let folding =
                Folding::search(plan, checkpoint, within, &mut calibrator, &seen, &affine)?;
            let all = layers.iter().map(|layer| layer.name.to_owned());
            (folding, Some(seen), vec![all.collect()])
        } else {
            (Folding::default(), None, calibrator.parts(block))
        };
        for (at, part) in parts.iter().enumerate() {
            let mut layers = layers
                .iter()
                .filter(|layer| part.iter().any(|name| name == layer.name))
                .peekable();
            let alone;
            let statistics = match &whole {
                Some(whole) => whole,
                None => {
                    alone = calibrator.observe_part(block, at, layers.peek().is_some())?;
                    &alone
                }
            };
            for layer in layers {
                step(progress, done, total)?;
                let mut weights = read_matrix(layer.tensor, plan.architecture.transposed())?;
                folding.apply(layer.name, &mut weights);
                let gram = statistics.layer(layer.name).and_then(LayerStatistics::gram);
                let packed = gram.and_then(|gram| match spec.preset.method {
                    Method::Awq => clip(layer, &weights, gram, &folding, &affine),
                    _ => gptq::quantize(&weights, gram, &affine, order).ok(),
                });
                let packed = packed.unwrap_or_else(|| {
                    notes.push(format!(
                        "{}: what goes into it has no Cholesky factor, so it was rounded to nearest",
                        layer.name
                    ));
                    rtn::quantize(&weights, &affine)
                });
                let mut effective = packed.dequantize();
                folding.undo(layer.name, &mut effective);
                calibrator.replace(layer.name, &effective);
                for part in plan
                    .scheme
                    .parts(layer.name, &Packed::Affine(packed), plan.dtype)
                {
                    spool.put(&part)?;
                }
                done += layer.tensor.elements();
            }
        }
        folded.extend(folding.vectors);
        if awq {
            calibrator.advance(block)?;
        } else {
            calibrator.advance_last_part(block)?;
        }
    }
    Ok(done)
}

/// Quantizes one layer.
fn pack(plan: &Plan<'_>, layer: &Layer<'_>, weights: &Matrix) -> Result<Packed, Error> {
    let beyond = |weight: &f32| f16::from_f32(*weight).is_infinite();
    // bitsandbytes and hqq compute in half precision.
    if let (Scheme::Int8 | Scheme::Hqq { .. }, Some(at)) =
        (plan.scheme, weights.data().iter().position(beyond))
    {
        let (row, col) = (at / weights.cols(), at % weights.cols());
        return Err(Error::TooLarge {
            path: layer.tensor.shard().full_path().to_owned(),
            tensor: layer.tensor.name().to_owned(),
            at: match plan.architecture.transposed() {
                true => col * weights.rows() + row,
                false => at,
            },
            value: weights.data()[at],
            dtype: "float16",
        });
    }
    Ok(match plan.scheme {
        Scheme::Nf4 { nested } => Packed::Nf4(nf4::quantize(weights, nested)),
        Scheme::Int8 => Packed::Int8(int8::quantize(weights)),
        Scheme::Hqq { bits, group_size } => {
            let size = crate::format::hqq::group_size(layer.rows, layer.cols, bits, group_size);
            Packed::Hqq(hqq::quantize(weights, bits, size.unwrap_or(1)))
        }
        Scheme::Quanto { bits: 8 } => Packed::Quanto(quanto::quantize8(weights, plan.dtype)),
        Scheme::Quanto { .. } => Packed::Quanto(quanto::quantize4(weights, plan.dtype)),
        _ => Packed::Affine(rtn::quantize(weights, &plan.scheme.affine(plan.dtype))),
    })
}

fn step(progress: &dyn Progress, done: u64, total: u64) -> Result<(), Error> {
    if progress.cancelled() {
        return Err(Error::Interrupted);
    }
    progress.step("quantize", done, total);
    Ok(())
}

/// Bytes of all files of a folder without sub-folders.
fn folder_bytes(folder: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        bytes += entry.metadata().map_err(Error::io("read", folder))?.len();
    }
    Ok(bytes)
}
