//! Measures delta methods for fine-tuned checkpoints side by side: size, encode and
//! decode speed on one thread with the data in memory, and whether what comes back
//! is the fine-tune byte for byte.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod machine;
mod measure;
mod method;
mod methods;
mod pair;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;

use measure::{Contender, Effort, InMemory, measure};
use pair::Pair;
use report::Report;

/// Side-by-side measurement of checkpoint delta methods.
#[derive(Debug, Parser)]
#[command(name = "bench-delta", version)]
struct Arguments {
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
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Measures one pair and prints the table.
fn compare(arguments: &Arguments) -> Result<ExitCode> {
    let mut contenders = contenders(&arguments.methods)?;
    let pair = Pair::load(&arguments.base, &arguments.finetune)?;
    let effort = Effort {
        repeats: arguments.repeats.max(1),
        budget: Duration::try_from_secs_f64(arguments.budget)?,
    };
    let measurements = measure(&pair, &mut contenders, effort, |what| eprintln!("{what}"));
    let report = Report::new(&pair, effort, BTreeMap::new(), measurements);
    print!("{}", report.table());
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The contenders asked for, or all of them.
fn contenders(wanted: &[String]) -> Result<Vec<Box<dyn Contender>>> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    for method in methods::all()? {
        all.push(Box::new(InMemory::new(method)));
    }
    for name in wanted {
        if !all.iter().any(|contender| contender.name() == name) {
            let known: Vec<&str> = all.iter().map(|contender| contender.name()).collect();
            bail!(
                "no method is called {name}\nhint: known are {}",
                known.join(", ")
            );
        }
    }
    if !wanted.is_empty() {
        all.retain(|contender| wanted.iter().any(|name| name == contender.name()));
    }
    Ok(all)
}
