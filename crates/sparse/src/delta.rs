//! `sparse delta`: fine-tuned checkpoints as deltas of their bases.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;
use sparse_delta::{CompressOptions, Effort, Info, ReconstructOptions};

use crate::context::{Context, Outcome};
use crate::machine::peak_memory_bytes;
use crate::output::check_apart;
use crate::{resolve, table};

/// What to do with deltas.
#[derive(Debug, Subcommand)]
pub enum DeltaCommand {
    /// Store a fine-tune as a delta of its base
    Compress {
        /// Checkpoint directory or hub id (owner/name[@revision]) that FINETUNE started from
        base: String,
        /// Checkpoint directory or hub id of the fine-tune
        finetune: String,
        /// Folder to write the delta to
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        #[command(flatten)]
        effort: EffortArgs,
    },
    /// Rebuild the fine-tune from its base and the delta, byte for byte
    Reconstruct {
        /// Checkpoint directory or hub id that the delta was made from
        base: String,
        /// Folder with the delta
        delta: PathBuf,
        /// Folder (with --tensor: file) to write to
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        /// Rebuild only this tensor, as a safetensors file
        #[arg(long, value_name = "NAME")]
        tensor: Option<String>,
    },
    /// Check that a delta is whole; with its base, that it rebuilds the original
    Verify {
        /// Folder with the delta
        delta: PathBuf,
        /// Checkpoint directory or hub id that the delta was made from
        #[arg(long)]
        base: Option<String>,
    },
    /// Show what a delta holds and which base it needs
    Info {
        /// Folder with the delta
        delta: PathBuf,
    },
    /// Estimate how large a delta would be, from a sample
    Estimate {
        /// Checkpoint directory or hub id that FINETUNE started from
        base: String,
        /// Checkpoint directory or hub id of the fine-tune
        finetune: String,
        #[command(flatten)]
        effort: EffortArgs,
    },
}

/// How hard to work for a smaller delta.
#[derive(Debug, clap::Args)]
pub struct EffortArgs {
    /// high: smallest, merged LoRAs tenfold; fast: made many times quicker; fastest: 4 % larger than
    /// fast, rebuilt in two thirds of the time given AVX-512
    #[arg(long, value_enum, default_value_t = EffortLevel::High)]
    effort: EffortLevel,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum EffortLevel {
    Fastest,
    Fast,
    High,
}

impl From<EffortArgs> for Effort {
    fn from(args: EffortArgs) -> Self {
        match args.effort {
            EffortLevel::Fastest => Self::Fastest,
            EffortLevel::Fast => Self::Fast,
            EffortLevel::High => Self::High,
        }
    }
}

/// Runs a subcommand.
pub fn run(command: DeltaCommand, context: &Context) -> anyhow::Result<Outcome> {
    match command {
        DeltaCommand::Compress {
            base,
            finetune,
            output,
            effort,
        } => compress(&base, &finetune, &output, effort.into(), context),
        DeltaCommand::Reconstruct {
            base,
            delta,
            output,
            tensor: Some(name),
        } => reconstruct_tensor(&base, &delta, &output, &name, context),
        DeltaCommand::Reconstruct {
            base,
            delta,
            output,
            tensor: None,
        } => reconstruct(&base, &delta, &output, context),
        DeltaCommand::Verify { delta, base } => verify(&delta, base.as_deref(), context),
        DeltaCommand::Info { delta } => info(&delta, context),
        DeltaCommand::Estimate {
            base,
            finetune,
            effort,
        } => estimate(&base, &finetune, effort.into(), context),
    }
}

fn compress(
    base: &str,
    finetune: &str,
    output: &Path,
    effort: Effort,
    context: &Context,
) -> anyhow::Result<Outcome> {
    context.check_output(output)?;
    let base_checkpoint = resolve::open(base, context)?;
    let fine_checkpoint = resolve::open(finetune, context)?;
    check_apart(output, &[base_checkpoint.root(), fine_checkpoint.root()])?;
    let options = CompressOptions {
        base_id: base.to_owned(),
        effort,
        threads: context.threads(),
        existing: context.existing(),
    };
    let bar = context.bar();
    let made = sparse_delta::compress(&base_checkpoint, &fine_checkpoint, output, &options, &bar)?;
    drop(bar);
    let skipped = fine_checkpoint.skipped();
    for folder in skipped {
        context.warn(&format!("the folder {folder} was left out"));
    }
    let modes: Vec<String> = made
        .modes
        .iter()
        .map(|(mode, weights)| {
            let share = 100.0 * *weights as f64 / made.parameters.max(1) as f64;
            format!("{mode} {share:.1}%")
        })
        .collect();
    context.emit(
        &json!({
            "original_bytes": made.original_bytes,
            "delta_bytes": made.delta_bytes,
            "ratio": made.ratio(),
            "tensors": made.tensors,
            "parameters": made.parameters,
            "changed_parameters": made.changed_parameters,
            "modes": made.modes,
            "lossless": true,
            "skipped": skipped.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "seconds": made.seconds,
            "peak_memory_bytes": peak_memory_bytes(),
        }),
        &table::fields(&[
            ("fine-tune", table::bytes(made.original_bytes)),
            (
                "delta",
                format!(
                    "{}  {:.2}x smaller",
                    table::bytes(made.delta_bytes),
                    made.ratio()
                ),
            ),
            (
                "weights",
                format!(
                    "{} in {} tensors, {:.1}% changed",
                    table::count(made.parameters),
                    made.tensors,
                    100.0 * made.changed_parameters as f64 / made.parameters.max(1) as f64
                ),
            ),
            ("stored as", modes.join(", ")),
            ("lossless", "yes, SHA-256 of every file is kept".to_owned()),
            ("took", table::seconds(made.seconds)),
        ]),
    )?;
    Ok(Outcome::Yes)
}

fn reconstruct(
    base: &str,
    delta: &Path,
    output: &Path,
    context: &Context,
) -> anyhow::Result<Outcome> {
    context.check_output(output)?;
    let base = resolve::open(base, context)?;
    check_apart(output, &[base.root(), delta])?;
    let options = ReconstructOptions {
        threads: context.threads(),
        existing: context.existing(),
    };
    let bar = context.bar();
    let made = sparse_delta::reconstruct(&base, delta, output, &options, &bar)?;
    drop(bar);
    context.emit(
        &json!({
            "files": made.files,
            "bytes": made.bytes,
            "verified": true,
            "seconds": made.seconds,
            "peak_memory_bytes": peak_memory_bytes(),
        }),
        &table::fields(&[
            (
                "rebuilt",
                format!("{} files, {}", made.files, table::bytes(made.bytes)),
            ),
            ("verified", "yes, SHA-256 of every file matches".to_owned()),
            ("took", table::seconds(made.seconds)),
        ]),
    )?;
    Ok(Outcome::Yes)
}

fn reconstruct_tensor(
    base: &str,
    delta: &Path,
    output: &Path,
    name: &str,
    context: &Context,
) -> anyhow::Result<Outcome> {
    context.check_output(output)?;
    let base = resolve::open(base, context)?;
    check_apart(output, &[base.root(), delta])?;
    let started = std::time::Instant::now();
    let bar = context.bar();
    let bytes =
        sparse_delta::reconstruct_tensor(&base, delta, name, output, context.existing(), &bar)?;
    drop(bar);
    let seconds = started.elapsed().as_secs_f64();
    context.emit(
        &json!({
            "files": 1,
            "bytes": bytes,
            "tensor": name,
            "verified": true,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory_bytes(),
        }),
        &table::fields(&[
            (
                "rebuilt",
                format!("tensor {}, {}", table::plain(name), table::bytes(bytes)),
            ),
            ("verified", "yes, its digest matches".to_owned()),
            ("took", table::seconds(seconds)),
        ]),
    )?;
    Ok(Outcome::Yes)
}

fn verify(delta: &Path, base: Option<&str>, context: &Context) -> anyhow::Result<Outcome> {
    let base = base.map(|base| resolve::open(base, context)).transpose()?;
    let bar = context.bar();
    let problems = sparse_delta::verify(delta, base.as_ref(), context.threads(), &bar)?;
    drop(bar);
    let rebuilt = base.is_some().then_some("rebuilds every file exactly");
    context.verdict(&problems, rebuilt)
}

fn info(delta: &Path, context: &Context) -> anyhow::Result<Outcome> {
    let info = sparse_delta::info(delta)?;
    // One of the two: there may be hundreds of thousands of tensors.
    let (value, text) = match context.json() {
        true => (info_value(&info), String::new()),
        false => (serde_json::Value::Null, info_text(&info)),
    };
    context.emit(&value, &text)?;
    Ok(Outcome::Yes)
}

fn ratio(info: &Info) -> f64 {
    info.original_bytes as f64 / info.delta_bytes.max(1) as f64
}

fn info_text(info: &Info) -> String {
    let mut text = table::fields(&[
        ("base", table::plain(&info.base_id)),
        ("base digest", info.base_digest.to_string()),
        (
            "made by",
            format!(
                "{}, format {}",
                table::plain(&info.creator),
                info.format_version
            ),
        ),
        (
            "size",
            format!(
                "{} for {}  {:.2}x smaller",
                table::bytes(info.delta_bytes),
                table::bytes(info.original_bytes),
                ratio(info)
            ),
        ),
    ]);
    text.push_str(&format!(
        "\n{:44} {:>10} {:>10}  {}\n",
        "file", "bytes", "stored", "as"
    ));
    for file in &info.files {
        text.push_str(&format!(
            "{:44} {:>10} {:>10}  {}\n",
            table::shorten(&file.path, 44),
            table::bytes(file.bytes),
            table::bytes(file.stored_bytes),
            file.kind
        ));
    }
    text.push_str(&format!(
        "\n{:36} {:8} {:>14} {:>9}  {}\n",
        "tensor", "dtype", "shape", "stored", "as"
    ));
    for tensor in &info.tensors {
        let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
        text.push_str(&format!(
            "{:36} {:8} {:>14} {:>9}  {}\n",
            table::shorten(&tensor.name, 36),
            tensor.dtype,
            table::shorten(&shape.join("x"), 14),
            table::bytes(tensor.bytes),
            tensor.mode
        ));
    }
    text
}

fn info_value(info: &Info) -> serde_json::Value {
    json!({
        "format_version": info.format_version,
        "creator": info.creator,
        "base": {"id": info.base_id, "digest": info.base_digest.to_string()},
        "original_bytes": info.original_bytes,
        "delta_bytes": info.delta_bytes,
        "ratio": ratio(info),
        "files": info.files.iter().map(|f| json!({
            "path": f.path,
            "bytes": f.bytes,
            "sha256": f.sha256.to_string(),
            "stored_bytes": f.stored_bytes,
            "kind": f.kind,
        })).collect::<Vec<_>>(),
        "tensors": info.tensors.iter().map(|t| json!({
            "name": t.name,
            "dtype": t.dtype,
            "shape": t.shape,
            "mode": t.mode,
            "bytes": t.bytes,
            "base": t.base,
        })).collect::<Vec<_>>(),
    })
}

fn estimate(
    base: &str,
    finetune: &str,
    effort: Effort,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let checkpoint = resolve::open(base, context)?;
    let fine = resolve::open(finetune, context)?;
    let bar = context.bar();
    let guess = sparse_delta::estimate(&checkpoint, &fine, base, effort, context.threads(), &bar)?;
    drop(bar);
    context.emit(
        &json!({
            "original_bytes": guess.original_bytes,
            "estimated_delta_bytes": guess.estimated_delta_bytes,
            "estimated_ratio": guess.ratio(),
            "unchanged_fraction": guess.unchanged_fraction,
            "sampled_parameters": guess.sampled_parameters,
            "seconds": guess.seconds,
        }),
        &table::fields(&[
            ("fine-tune", table::bytes(guess.original_bytes)),
            (
                "delta, about",
                format!(
                    "{}  {:.2}x smaller",
                    table::bytes(guess.estimated_delta_bytes),
                    guess.ratio()
                ),
            ),
            (
                "unchanged",
                format!(
                    "{:.1}% of {} weights sampled",
                    100.0 * guess.unchanged_fraction,
                    table::count(guess.sampled_parameters)
                ),
            ),
            ("took", table::seconds(guess.seconds)),
        ]),
    )?;
    Ok(Outcome::Yes)
}
