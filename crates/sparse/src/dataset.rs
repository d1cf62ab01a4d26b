//! `sparse dataset`: derivative datasets as deltas of their bases.

mod show;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Subcommand;
use serde_json::json;
use sparse_checkpoint::{Existing, NewParents};
use sparse_dataset::{CompressSpec, Effort, Error, FILE_NAME};

use crate::context::{Context, Hinted, Outcome};
use crate::machine::peak_memory_bytes;
use crate::output::real_path;
use crate::table;

/// What to do with dataset deltas.
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Store a derivative dataset as a delta of its base
    Compress {
        /// Data file (.parquet .jsonl .json .csv .tsv .arrow) or folder of splits
        base: PathBuf,
        /// Data file or folder of splits made from BASE, of any of these formats
        derivative: PathBuf,
        /// Folder to write the delta to
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Rebuild the derivative from its base and the delta
    Reconstruct {
        /// Data file or folder that the delta was made from
        base: PathBuf,
        /// Folder with the delta
        delta: PathBuf,
        /// File to write; where it is a folder, or the delta has several files, folder
        #[arg(short, long, value_name = "PATH")]
        output: PathBuf,
    },
    /// Check that a delta is whole; with its base, that it rebuilds the original
    Verify {
        /// Folder with the delta
        delta: PathBuf,
        /// Data file or folder that the delta was made from
        #[arg(long)]
        base: Option<PathBuf>,
    },
    /// Explain what a delta changes
    Info {
        /// Folder with the delta
        delta: PathBuf,
        /// Show an example of each kind of row, read from this base
        #[arg(long)]
        base: Option<PathBuf>,
    },
    /// Estimate how large a delta would be, from a sample
    Estimate {
        /// Data file or folder of splits
        base: PathBuf,
        /// Data file or folder of splits made from BASE
        derivative: PathBuf,
        #[command(flatten)]
        options: Options,
    },
}

/// How inputs are read and how hard to try.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Match rows by this column of the derivative first
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// Be content with Parquet and Arrow files of equal content
    #[arg(long)]
    logical: bool,
    /// Store malformed lines as they are instead of refusing the file
    #[arg(long)]
    lenient: bool,
    /// CSV and TSV files have no line of column names
    #[arg(long)]
    no_header: bool,
    /// How hard to look for a small encoding of new text
    #[arg(long, value_enum, default_value_t = EffortLevel::High)]
    effort: EffortLevel,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum EffortLevel {
    /// zstd at level 3
    Fast,
    /// A text model for up to 3 MB of new text (beyond 64 MiB, a 2000th of the file), zstd beyond
    High,
    /// The text model for up to 96 MB of new text, zstd at level 19 beyond
    Highest,
}

impl Options {
    fn spec(self, context: &Context) -> CompressSpec {
        CompressSpec {
            key: self.key,
            logical: self.logical,
            lenient: self.lenient,
            header: !self.no_header,
            threads: context.threads(),
            effort: match self.effort {
                EffortLevel::Fast => Effort::Fast,
                EffortLevel::High => Effort::Small,
                EffortLevel::Highest => Effort::Smallest,
            },
        }
    }
}

/// Runs a subcommand.
pub fn run(command: DatasetCommand, context: &Context) -> anyhow::Result<Outcome> {
    silence_readers();
    match command {
        DatasetCommand::Compress {
            base,
            derivative,
            output,
            options,
        } => compress(&base, &derivative, &output, &options.spec(context), context),
        DatasetCommand::Reconstruct {
            base,
            delta,
            output,
        } => reconstruct(&base, &delta, &output, context),
        DatasetCommand::Verify { delta, base } => verify(&delta, base.as_deref(), context),
        DatasetCommand::Info { delta, base } => info(&delta, base.as_deref(), context),
        DatasetCommand::Estimate {
            base,
            derivative,
            options,
        } => estimate(&base, &derivative, &options.spec(context), context),
    }
}

/// Keeps the panic messages of the Parquet and Arrow readers off the screen.
///
/// On damaged files those readers panic. The library catches that and gives an error which
/// names the file, but by then the default hook has printed "thread 'main' panicked" above our
/// one message. Only the printing is left out, and only for panics raised inside these crates,
/// which their source paths tell; every other panic is reported as usual.
fn silence_readers() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        if !file.contains("/parquet-") && !file.contains("/arrow-") {
            usual(panic);
        }
    }));
}

/// Refuses outputs that exist before anything slow is done.
fn check_output(output: &Path, context: &Context) -> anyhow::Result<()> {
    if context.existing() == Existing::Keep && output.symlink_metadata().is_ok() {
        let path = output.to_owned();
        return Err(Error::Exists { path }.into());
    }
    Ok(())
}

/// Refuses an output among the files of the base, which would no longer be what the delta needs, and
/// one in the place of the delta.
fn check_apart(target: &Path, base: &Path, delta: &Path) -> anyhow::Result<()> {
    let Ok(out) = real_path(target) else {
        return Ok(());
    };
    let is_in_base = real_path(base).is_ok_and(|base| out.starts_with(base));
    let is_delta = real_path(delta).is_ok_and(|delta| out == delta || out == delta.join(FILE_NAME));
    if is_in_base || is_delta {
        let input = if is_in_base { base } else { delta };
        return Err(Hinted {
            message: format!(
                "the output {} would change {}",
                target.display(),
                input.display()
            ),
            hint: "choose another output with -o".to_owned(),
        }
        .into());
    }
    Ok(())
}

fn compress(
    base: &Path,
    derivative: &Path,
    output: &Path,
    spec: &CompressSpec,
    context: &Context,
) -> anyhow::Result<Outcome> {
    check_output(output, context)?;
    let started = Instant::now();
    let bar = context.bar();
    let _folders = NewParents::of(&output.join(FILE_NAME))?;
    let report = sparse_dataset::compress(base, derivative, output, spec, &bar)?;
    drop(bar);
    let seconds = started.elapsed().as_secs_f64();
    let (value, text) = show::compressed(&report, seconds);
    context.emit(&value, &text)?;
    Ok(Outcome::Yes)
}

fn reconstruct(
    base: &Path,
    delta: &Path,
    output: &Path,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    if output.is_dir() {
        for split in sparse_dataset::info(delta)?.splits {
            let target = output.join(split.name);
            check_output(&target, context)?;
            check_apart(&target, base, delta)?;
        }
    } else {
        check_output(output, context)?;
        check_apart(output, base, delta)?;
    }
    let bar = context.bar();
    let report = sparse_dataset::reconstruct(base, delta, output, context.threads(), &bar)?;
    drop(bar);
    let seconds = started.elapsed().as_secs_f64();
    let (value, text) = show::rebuilt(&report, seconds);
    context.emit(&value, &text)?;
    Ok(Outcome::Yes)
}

fn verify(delta: &Path, base: Option<&Path>, context: &Context) -> anyhow::Result<Outcome> {
    let bar = context.bar();
    let problems = match sparse_dataset::verify(delta, base, context.threads(), &bar) {
        Ok(()) => Vec::new(),
        // A delta that is not right is an answer; one that cannot be read is an error.
        Err(
            error @ (Error::Damaged { .. } | Error::WrongBase { .. } | Error::WrongOutput { .. }),
        ) => vec![error.to_string()],
        Err(error) => return Err(error.into()),
    };
    drop(bar);
    let rebuilt = base.is_some().then_some("rebuilds every file");
    context.verdict(&problems, rebuilt)
}

fn info(delta: &Path, base: Option<&Path>, context: &Context) -> anyhow::Result<Outcome> {
    let info = sparse_dataset::info(delta)?;
    let examples = base.map(|base| sparse_dataset::examples(delta, base));
    let examples = examples.transpose()?.unwrap_or_default();
    let (value, text) = show::info(&info, &examples);
    context.emit(&value, &text)?;
    Ok(Outcome::Yes)
}

fn estimate(
    base: &Path,
    derivative: &Path,
    spec: &CompressSpec,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let started = Instant::now();
    let bar = context.bar();
    let guess = sparse_dataset::estimate(base, derivative, spec, &bar)?;
    drop(bar);
    let seconds = started.elapsed().as_secs_f64();
    let ratio = guess.derivative_bytes as f64 / guess.estimated_delta_bytes.max(1) as f64;
    context.emit(
        &json!({
            "derivative_bytes": guess.derivative_bytes,
            "estimated_delta_bytes": guess.estimated_delta_bytes,
            "estimated_ratio": ratio,
            "unchanged_fraction": guess.unchanged_fraction,
            "sampled_rows": guess.sampled_rows,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory_bytes(),
        }),
        &table::fields(&[
            ("derivative", table::bytes(guess.derivative_bytes)),
            (
                "delta, about",
                format!(
                    "{}  {ratio:.2}x smaller",
                    table::bytes(guess.estimated_delta_bytes)
                ),
            ),
            (
                "unchanged",
                format!(
                    "{:.1}% of {} rows sampled",
                    100.0 * guess.unchanged_fraction,
                    table::count(guess.sampled_rows)
                ),
            ),
            ("took", table::seconds(seconds)),
        ]),
    )?;
    Ok(Outcome::Yes)
}
