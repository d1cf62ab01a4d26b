//! `sparse dataset`: a derivative dataset as a delta of its base.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use sparse_dataset::{CompressSpec, Effort, Error, Example, FILE_NAME, Progress, Result, SplitReport};

use crate::Context;

/// The operations of `sparse dataset`.
#[derive(Debug, Subcommand)]
pub enum DatasetArgs {
    /// Write DERIVATIVE as a delta of BASE
    Compress {
        /// The base: a data file, or a folder of splits
        base: PathBuf,
        /// The derivative: a data file, or a folder of splits
        derivative: PathBuf,
        /// The folder for the delta
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Rebuild the derivative from BASE and DELTA
    Reconstruct {
        /// The base that the delta was made from
        base: PathBuf,
        /// The delta's folder
        delta: PathBuf,
        /// The file to write, or the folder when the delta holds several
        #[arg(short, long, value_name = "PATH")]
        output: PathBuf,
    },
    /// Check that a delta is whole, and with --base that it rebuilds
    Verify {
        /// The delta's folder
        delta: PathBuf,
        /// Rebuild every file from this base and compare digests
        #[arg(long)]
        base: Option<PathBuf>,
    },
    /// Explain what a delta changes
    Info {
        /// The delta's folder
        delta: PathBuf,
        /// Show an example of each kind of row, read from this base
        #[arg(long)]
        base: Option<PathBuf>,
    },
    /// Say what a delta would come to, without writing it
    Estimate {
        /// The base: a data file, or a folder of splits
        base: PathBuf,
        /// The derivative: a data file, or a folder of splits
        derivative: PathBuf,
        #[command(flatten)]
        options: Options,
    },
}

/// How inputs are read and how hard to try.
#[derive(Debug, Args)]
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
    #[arg(long, value_enum, default_value = "small")]
    effort: EffortArg,
}

/// The names of the efforts.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum EffortArg {
    /// zstd -3
    Fast,
    /// The text model up to 4 MB of new text, zstd -19 beyond
    Small,
    /// The text model up to 64 MB of new text, taught by the base first
    Smallest,
}

impl Options {
    fn spec(self) -> CompressSpec {
        CompressSpec {
            key: self.key,
            logical: self.logical,
            lenient: self.lenient,
            header: !self.no_header,
            effort: match self.effort {
                EffortArg::Fast => Effort::Fast,
                EffortArg::Small => Effort::Small,
                EffortArg::Smallest => Effort::Smallest,
            },
        }
    }
}

/// What a command answers: an exit code, a table, and the same as JSON.
struct Answer {
    yes: bool,
    text: String,
    json: Value,
}

/// Runs a command; reports errors itself and gives the exit code.
pub fn run(args: DatasetArgs, context: &Context) -> ExitCode {
    let bar = Bar { shown: Mutex::new(None), on: !context.quiet && !context.json && std::io::stderr().is_terminal() };
    let started = Instant::now();
    silence_readers();
    let answer = match args {
        DatasetArgs::Compress { base, derivative, output, options } => compress(&base, &derivative, &output, options, context, &bar),
        DatasetArgs::Reconstruct { base, delta, output } => reconstruct(&base, &delta, &output, context, &bar),
        DatasetArgs::Verify { delta, base } => verify(&delta, base.as_deref(), &bar),
        DatasetArgs::Info { delta, base } => info(&delta, base.as_deref()),
        DatasetArgs::Estimate { base, derivative, options } => estimate(&base, &derivative, options, &bar),
    };
    bar.clear();
    // A closed pipe is not worth a message.
    let mut out = std::io::stdout().lock();
    match answer {
        Ok(mut answer) => {
            answer.json["seconds"] = json!(started.elapsed().as_secs_f64());
            let _ = if context.json { writeln!(out, "{}", answer.json) } else { write!(out, "{}", answer.text) };
            ExitCode::from(u8::from(!answer.yes))
        }
        Err(error) => {
            if context.json {
                let _ = writeln!(out, "{}", json!({ "error": error.to_string(), "hint": error.hint() }));
            }
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(2)
        }
    }
}

/// The library turns panics of the Parquet and Arrow readers on damaged files
/// into errors; their own messages would only stand above ours.
fn silence_readers() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        if !file.contains("/parquet-") && !file.contains("/arrow-") {
            usual(panic);
        }
    }));
}

fn may_write(path: &Path, context: &Context) -> Result<()> {
    if path.exists() && !context.force {
        return Err(Error::Exists { path: path.to_owned() });
    }
    Ok(())
}

fn compress(base: &Path, derivative: &Path, output: &Path, options: Options, context: &Context, bar: &Bar) -> Result<Answer> {
    may_write(&output.join(FILE_NAME), context)?;
    let created = !output.exists();
    std::fs::create_dir_all(output).map_err(|source| Error::Io { path: output.to_owned(), source })?;
    let report = sparse_dataset::compress(base, derivative, output, &options.spec(), bar).inspect_err(|_| {
        if created {
            // Left empty by a failure; if it is in use it stays.
            let _ = std::fs::remove_dir(output);
        }
    })?;
    let saved = 100.0 * (1.0 - report.delta_bytes as f64 / report.derivative_bytes.max(1) as f64);
    let mut text = table(&report.splits);
    text += &format!(
        "{} -> {} bytes ({saved:.2} % saved); rebuilds {}\n",
        report.derivative_bytes,
        report.delta_bytes,
        exactness(report.byte_exact)
    );
    let json = json!({
        "derivative_bytes": report.derivative_bytes,
        "delta_bytes": report.delta_bytes,
        "savings_pct": saved,
        "byte_exact": report.byte_exact,
        "splits": report.splits.iter().map(split_json).collect::<Vec<_>>(),
    });
    Ok(Answer { yes: true, text, json })
}

fn reconstruct(base: &Path, delta: &Path, output: &Path, context: &Context, bar: &Bar) -> Result<Answer> {
    if !output.is_dir() {
        may_write(output, context)?;
    } else if !context.force {
        for split in sparse_dataset::info(delta)?.splits {
            may_write(&output.join(split.name), context)?;
        }
    }
    let report = sparse_dataset::reconstruct(base, delta, output, bar)?;
    let names: Vec<String> = report.files.iter().map(|file| file.display().to_string()).collect();
    let text = format!("{}\n{} bytes, SHA-256 verified, {}\n", names.join("\n"), report.bytes, exactness(report.byte_exact));
    let json = json!({ "files": names, "bytes": report.bytes, "verified": true, "byte_exact": report.byte_exact });
    Ok(Answer { yes: true, text, json })
}

fn verify(delta: &Path, base: Option<&Path>, bar: &Bar) -> Result<Answer> {
    match sparse_dataset::verify(delta, base, bar) {
        Ok(()) => {
            let what = if base.is_some() { "every file rebuilds" } else { "whole; give --base to rebuild every file" };
            Ok(Answer { yes: true, text: format!("ok: {what}\n"), json: json!({ "ok": true, "problems": [] }) })
        }
        // A delta that is not right is the answer; one that cannot be read is an error.
        Err(error @ (Error::Damaged { .. } | Error::WrongBase { .. } | Error::WrongOutput { .. })) => {
            let problem = error.to_string();
            Ok(Answer { yes: false, text: format!("not ok: {problem}\n"), json: json!({ "ok": false, "problems": [problem] }) })
        }
        Err(error) => Err(error),
    }
}

fn info(delta: &Path, base: Option<&Path>) -> Result<Answer> {
    let info = sparse_dataset::info(delta)?;
    let examples = base.map(|base| sparse_dataset::examples(delta, base)).transpose()?.unwrap_or_default();
    let ratio = info.original_bytes as f64 / info.delta_bytes.max(1) as f64;
    let mut text = table(&info.splits);
    for split in &info.splits {
        text += &format!("{}: rebuilds {}\n", split.name, exactness(split.byte_exact));
        if !split.columns_added.is_empty() {
            text += &format!("  columns added: {}\n", split.columns_added.join(", "));
        }
        if !split.columns_dropped.is_empty() {
            text += &format!("  columns of the base not kept by name: {}\n", split.columns_dropped.join(", "));
        }
        for rule in &split.column_rules {
            text += &format!("  {rule}\n");
        }
        for example in examples.iter().filter(|example| example.split == split.name) {
            text += &describe(example);
        }
    }
    text += &format!("{} -> {} bytes, {ratio:.1} times smaller; base SHA-256 {}\n", info.original_bytes, info.delta_bytes, info.base_sha256);
    let json = json!({
        "format_version": info.format_version,
        "base": { "digest": info.base_sha256 },
        "files": info.splits.iter().map(split_json).collect::<Vec<_>>(),
        "original_bytes": info.original_bytes,
        "delta_bytes": info.delta_bytes,
        "ratio": ratio,
        "examples": examples.iter().map(|example| json!({
            "file": example.split, "what": example.what, "row": example.row, "base_row": example.base_row,
            "cells": example.cells.iter().map(|(column, before, after)| json!({ "column": column, "base": before, "value": after })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    });
    Ok(Answer { yes: true, text, json })
}

fn estimate(base: &Path, derivative: &Path, options: Options, bar: &Bar) -> Result<Answer> {
    let estimate = sparse_dataset::estimate(base, derivative, &options.spec(), bar)?;
    let ratio = estimate.derivative_bytes as f64 / estimate.estimated_delta_bytes.max(1) as f64;
    let text = format!(
        "about {} bytes for {} ({ratio:.1} times smaller); {:.1} % of rows unchanged\n",
        estimate.estimated_delta_bytes,
        estimate.derivative_bytes,
        100.0 * estimate.unchanged_fraction
    );
    let json = json!({
        "derivative_bytes": estimate.derivative_bytes,
        "estimated_delta_bytes": estimate.estimated_delta_bytes,
        "estimated_ratio": ratio,
        "unchanged_fraction": estimate.unchanged_fraction,
        "sampled_rows": estimate.sampled_rows,
    });
    Ok(Answer { yes: true, text, json })
}

fn exactness(byte_exact: bool) -> &'static str {
    if byte_exact { "byte for byte" } else { "with equal schema, metadata and rows, not byte for byte" }
}

fn table(splits: &[SplitReport]) -> String {
    let mut out = String::from("      rows      kept     moved    edited       new   bytes        delta    file\n");
    for split in splits {
        out += &format!(
            "{:>10}{:>10}{:>10}{:>10}{:>10}   {:<12} {:<8} {}\n",
            split.rows,
            split.rows_referenced - split.rows_edited,
            split.rows_moved,
            split.rows_edited,
            split.rows_new,
            split.bytes,
            split.delta_bytes,
            split.name
        );
    }
    out
}

fn split_json(split: &SplitReport) -> Value {
    json!({
        "name": split.name,
        "bytes": split.bytes,
        "delta_bytes": split.delta_bytes,
        "byte_exact": split.byte_exact,
        "rows": split.rows,
        "rows_referenced": split.rows_referenced,
        "rows_moved": split.rows_moved,
        "rows_edited": split.rows_edited,
        "rows_new": split.rows_new,
        "columns_added": split.columns_added,
        "columns_dropped": split.columns_dropped,
        "column_rules": split.column_rules,
    })
}

fn describe(example: &Example) -> String {
    let from = example.base_row.map_or(String::new(), |row| format!(", base row {row}"));
    let mut out = format!("  example, {} row {}{from}:\n", example.what, example.row);
    for (column, before, after) in &example.cells {
        if let Some(before) = before {
            out += &format!("    - {column}: {before:?}\n");
        }
        out += &format!("    + {column}: {after:?}\n");
    }
    out
}

/// One line on a terminal.
struct Bar {
    shown: Mutex<Option<Instant>>,
    on: bool,
}

impl Progress for Bar {
    fn step(&self, stage: &str, done: u64, total: u64) {
        if !self.on {
            return;
        }
        let Ok(mut shown) = self.shown.lock() else { return };
        if shown.is_none_or(|at| at.elapsed().as_millis() >= 100) {
            *shown = Some(Instant::now());
            eprint!("\r\x1b[K{stage}: {:.0} %", 100.0 * done as f64 / total.max(1) as f64);
        }
    }
}

impl Bar {
    fn clear(&self) {
        if self.on {
            eprint!("\r\x1b[K");
        }
    }
}
