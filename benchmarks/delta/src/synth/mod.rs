//! Writes a synthetic base and fine-tune with the shapes of a large model.
//!
//! For what size alone shows: memory that must not grow with the model, throughput
//! from and to disk. Weights are Gaussian with a scale per row; an update is uniform
//! within a bound per row, as the updates of AdamW in the fixture pairs nearly are
//! (kurtosis 1.6 there, 1.8 here). Everything streams: memory use is a few MB.

mod noise;
mod shapes;
mod shards;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use noise::{Noise, Row};
use shapes::{Architecture, Kind, Shape, Tensor};
use shards::{ShardWriter, plan_shards, write_index};

/// Standard deviation of a weight, as such models have it.
const WEIGHT_SCALE: f32 = 0.02;
/// Bounds of a tensor's mean absolute update.
const UPDATE_SCALE: (f32, f32) = (1e-5, 1e-4);
/// Spread of the row scales about the tensor's, in natural logarithms.
const ROW_SPREAD: f32 = 0.15;

/// Write a synthetic base and fine-tune.
#[derive(Debug, Args)]
pub struct SynthArguments {
    /// Shapes of which model.
    #[arg(long, value_enum)]
    shape: Shape,
    /// Folder to make; `base` and `finetune` are written inside.
    #[arg(long)]
    out: PathBuf,
    /// Largest size of a shard's tensors, in MB.
    #[arg(long, default_value_t = 5000)]
    shard_mb: u64,
    /// Seed of all weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the subcommand.
pub fn run(arguments: &SynthArguments) -> Result<()> {
    let architecture = arguments.shape.architecture();
    let shard_bytes = arguments.shard_mb.max(1) * 1_000_000;
    let start = std::time::Instant::now();
    let bytes = write_pair(
        &architecture,
        &arguments.out,
        shard_bytes,
        arguments.seed,
        |done| {
            eprintln!("{done}");
        },
    )?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}: {:.2} GB twice in {seconds:.1} s, {:.0} MB/s",
        arguments.out.display(),
        bytes as f64 / 1e9,
        2.0 * bytes as f64 / 1e6 / seconds
    );
    Ok(())
}

/// Writes both checkpoints side by side; returns the bytes of one.
fn write_pair(
    architecture: &Architecture,
    out: &Path,
    shard_bytes: u64,
    seed: u64,
    progress: impl Fn(&str),
) -> Result<u64> {
    let folders = [out.join("base"), out.join("finetune")];
    for folder in &folders {
        if folder.exists() {
            bail!(
                "{} exists\nhint: name a new folder with --out",
                folder.display()
            );
        }
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = serde_json::to_string_pretty(&architecture.config())?;
        fs::write(folder.join("config.json"), config + "\n")?;
    }
    let tensors = architecture.tensors();
    let plan = plan_shards(&tensors, shard_bytes);
    let mut noise = Noise::new(seed);
    for shard in &plan {
        let [base, fine] = &folders;
        let mut base =
            ShardWriter::create(&base.join(&shard.file), &tensors[shard.tensors.clone()])?;
        let mut fine =
            ShardWriter::create(&fine.join(&shard.file), &tensors[shard.tensors.clone()])?;
        for tensor in &tensors[shard.tensors.clone()] {
            write_tensor(tensor, &mut noise, &mut base, &mut fine)?;
        }
        base.finish()?;
        fine.finish()?;
        progress(&shard.file);
    }
    let bytes = tensors.iter().map(Tensor::bytes).sum();
    for folder in &folders {
        write_index(folder, &tensors, &plan, json!({ "total_size": bytes }))?;
    }
    Ok(bytes)
}

/// Draws one tensor row by row.
fn write_tensor(
    tensor: &Tensor,
    noise: &mut Noise,
    base: &mut ShardWriter,
    fine: &mut ShardWriter,
) -> Result<()> {
    let (low, high) = UPDATE_SCALE;
    // Between the bounds on a logarithmic scale, rows included.
    let update = low * (high / low).powf(0.15 + 0.7 * noise.unit());
    let (rows, columns) = match tensor.shape[..] {
        [rows, columns] => (rows, columns),
        [columns] => (1, columns),
        _ => bail!("{} is neither a matrix nor a vector", tensor.name),
    };
    for _ in 0..rows {
        let (mean, scale) = match tensor.kind {
            Kind::Norm => (1.0, 0.1),
            Kind::Matrix => (0.0, WEIGHT_SCALE * noise.log_normal(ROW_SPREAD)),
        };
        let update = (update * noise.log_normal(ROW_SPREAD)).clamp(low, high);
        let row = Row {
            mean,
            scale,
            update,
        };
        noise.fill(row, base.space(2 * columns)?, fine.space(2 * columns)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::Pair;

    #[test]
    fn a_small_pair_is_readable_and_changes_as_a_fine_tune_does() {
        let architecture = Architecture {
            vocabulary: 64,
            hidden: 128,
            intermediate: 192,
            layers: 3,
            heads: 4,
            key_value_heads: 2,
            head_size: 32,
            tied: false,
        };
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("pair");
        let bytes = write_pair(&architecture, &out, 100_000, 7, |_| ()).unwrap();

        let pair = Pair::load(&out.join("base"), &out.join("finetune")).unwrap();
        assert_eq!(pair.fine.len() as u64, bytes);
        assert_eq!(pair.layout.tensors.len(), 3 * 9 + 3);
        assert!(pair.layout.tensors.iter().all(|t| t.base.is_some()));
        assert!(
            fs::read_dir(out.join("base")).unwrap().count() > 3,
            "several shards"
        );
        let unchanged = pair.unchanged().unwrap();
        assert!((0.2..0.9).contains(&unchanged), "{unchanged} unchanged");
        assert!(
            write_pair(&architecture, &out, 100_000, 7, |_| ()).is_err(),
            "it exists"
        );
    }
}
