//! The `sparse` command: it reads arguments, calls the libraries and shows what they say.
#![forbid(unsafe_code)]

mod bench;
mod context;
mod dataset;
mod delta;
mod demo;
mod eval;
mod generate;
mod machine;
mod model;
mod output;
mod progress;
mod quantize;
mod resolve;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::context::{Context, Outcome};

/// Store fine-tuned checkpoints as deltas of their bases, and rebuild them exactly.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 80)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Replace an existing output
    #[arg(long, global = true)]
    force: bool,
    /// Threads to use; by default one per CPU
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Show no progress
    #[arg(long, short, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole tour on the checkpoint that ships with the repository
    Demo,
    /// Fine-tuned checkpoints as deltas of their bases
    #[command(subcommand, arg_required_else_help = true)]
    Delta(delta::DeltaCommand),
    /// Derivative datasets as deltas of their bases
    #[command(subcommand, arg_required_else_help = true)]
    Dataset(dataset::DatasetCommand),
    /// Quantize a checkpoint into a format that other tools load
    Quantize(quantize::QuantizeArgs),
    /// Turn a quantized checkpoint back into a plain one
    Dequantize(quantize::DequantizeArgs),
    /// How well a model predicts a text: perplexity, divergence from a base
    Eval(eval::EvalArgs),
    /// Let a model go on
    Generate(generate::GenerateArgs),
    /// How long a model takes: latency, throughput, memory
    Bench(bench::BenchArgs),
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return context::usage_error(&error),
    };
    let context = Context::new(
        args.common.json,
        args.common.force,
        args.common.threads,
        args.common.quiet,
    );
    let result = match args.command {
        Command::Demo => demo::run(&context),
        Command::Delta(command) => delta::run(command, &context),
        Command::Dataset(command) => dataset::run(command, &context),
        Command::Quantize(args) => quantize::run(&args, &context),
        Command::Dequantize(args) => quantize::dequantize(&args, &context),
        Command::Eval(args) => eval::run(args, &context),
        Command::Generate(args) => generate::run(args, &context),
        Command::Bench(args) => bench::run(&args, &context),
    };
    match result {
        Ok(Outcome::Yes) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        Err(error) => context.fail(&error),
    }
}
