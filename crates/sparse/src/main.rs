//! The `sparse` command.

mod dataset;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Flags that every command takes.
#[derive(Debug, clap::Args)]
pub struct Context {
    /// Print one JSON object instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
    /// Replace an existing output.
    #[arg(long, global = true)]
    pub force: bool,
    /// Show no progress.
    #[arg(long, global = true)]
    pub quiet: bool,
}

#[derive(Parser)]
#[command(name = "sparse", version, about)]
struct Cli {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Store a derivative dataset as a delta of its base
    #[command(subcommand)]
    Dataset(dataset::DatasetArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Dataset(args) => dataset::run(args, &cli.context),
    }
}
