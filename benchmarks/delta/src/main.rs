//! Measures delta methods for fine-tuned checkpoints side by side: size, encode and
//! decode speed on one thread with the data in memory, and whether what comes back
//! is the fine-tune byte for byte.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
mod external;
mod machine;
mod measure;
mod method;
mod methods;
mod pair;
mod report;
mod synth;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

use external::External;
use measure::{Contender, Effort, InMemory, measure};
use pair::Pair;
use report::Report;
use synth::SynthArguments;

/// Side-by-side measurement of checkpoint delta methods.
#[derive(Debug, Parser)]
#[command(name = "bench-delta", version)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    compare: Option<CompareArguments>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a synthetic base and fine-tune with the shapes of a large model.
    Synth(SynthArguments),
}

/// Measure one pair.
#[derive(Debug, Args)]
struct CompareArguments {
    /// Checkpoint folder or safetensors file of the base.
    base: PathBuf,
    /// Checkpoint folder or safetensors file of the fine-tune.
    finetune: PathBuf,
    /// Timed rounds of every method.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Seconds after which a slow method gets no further rounds.
    #[arg(long, default_value_t = 20.0)]
    budget: f64,
    /// Write the raw numbers to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only these methods, separated by commas.
    #[arg(long, value_delimiter = ',')]
    methods: Vec<String>,
    /// A Python that has the packages of requirements.txt.
    #[arg(long, default_value = "benchmarks/.venv/bin/python")]
    python: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    match (arguments.command, arguments.compare) {
        (Some(Command::Synth(synth)), _) => synth::run(&synth),
        (None, Some(compare)) => measure_pair(&compare),
        (None, None) => bail!("name a base and a fine-tune\nhint: bench-delta --help"),
    }
}

/// Measures one pair and prints the table.
fn measure_pair(arguments: &CompareArguments) -> Result<()> {
    let mut contenders = in_process(&arguments.methods)?;
    let pair = Pair::load(&arguments.base, &arguments.finetune)?;
    let wanted = |name: &str| is_wanted(&arguments.methods, name);
    let external = External::prepare(&pair, &arguments.python, wanted)?;
    contenders.extend(external.contenders);
    let effort = Effort {
        repeats: arguments.repeats.max(1),
        budget: Duration::try_from_secs_f64(arguments.budget)?,
    };
    let measurements = measure(&pair, &mut contenders, effort, |what| eprintln!("{what}"));
    let report = Report::new(&pair, effort, external.versions, measurements);
    print!("{}", report.table());
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(())
}

fn is_wanted(wanted: &[String], name: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|method| method == name)
}

/// The methods of this process that were asked for; an unknown name is an error.
fn in_process(wanted: &[String]) -> Result<Vec<Box<dyn Contender>>> {
    let mut methods = methods::all()?;
    let known = methods
        .iter()
        .map(|method| method.name())
        .chain(external::NAMES);
    let known: Vec<&str> = known.collect();
    if let Some(name) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(
            "no method is called {name}\nhint: known are {}",
            known.join(", ")
        );
    }
    methods.retain(|method| is_wanted(wanted, method.name()));
    let contenders = methods
        .into_iter()
        .map(|method| Box::new(InMemory::new(method)) as Box<_>);
    Ok(contenders.collect())
}
