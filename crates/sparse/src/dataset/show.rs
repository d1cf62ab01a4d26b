//! What `sparse dataset` prints: each answer as JSON and as text.

use serde_json::{Value, json};
use sparse_dataset::{CompressReport, Example, Info, ReconstructReport, SplitReport};

use crate::machine::peak_memory_bytes;
use crate::table;

/// What a compression did.
pub fn compressed(report: &CompressReport, seconds: f64) -> (Value, String) {
    let saved = 100.0 * (1.0 - report.delta_bytes as f64 / report.derivative_bytes.max(1) as f64);
    let ratio = report.derivative_bytes as f64 / report.delta_bytes.max(1) as f64;
    let mut text = table::fields(&[
        ("derivative", table::bytes(report.derivative_bytes)),
        (
            "delta",
            format!(
                "{}  {}",
                table::bytes(report.delta_bytes),
                if report.delta_bytes > report.derivative_bytes {
                    "larger than the derivative".to_owned()
                } else {
                    format!("{ratio:.2}x smaller, {saved:.2}% saved")
                }
            ),
        ),
        ("rebuilds", exactness(report.byte_exact).to_owned()),
        ("took", table::seconds(seconds)),
    ]);
    text.push_str(&splits(&report.splits));
    if !report.skipped.is_empty() {
        let names = table::plain(&report.skipped.join(", "));
        text.push('\n');
        text.push_str(&table::wrap(&format!("not data, skipped: {names}"), 0));
    }
    let value = json!({
        "derivative_bytes": report.derivative_bytes,
        "delta_bytes": report.delta_bytes,
        "ratio": ratio,
        "savings_pct": saved,
        "byte_exact": report.byte_exact,
        "splits": report.splits.iter().map(split_json).collect::<Vec<_>>(),
        "skipped": report.skipped,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(),
    });
    (value, text)
}

/// What a reconstruction did.
pub fn rebuilt(report: &ReconstructReport, seconds: f64) -> (Value, String) {
    let count = report.files.len();
    let files = if count == 1 { "file" } else { "files" };
    let verified = if report.byte_exact {
        "yes, SHA-256 of every file matches"
    } else {
        "yes, schema, metadata and rows are the original's, not its bytes"
    };
    let text = table::fields(&[
        (
            "rebuilt",
            format!("{count} {files}, {}", table::bytes(report.bytes)),
        ),
        ("verified", verified.to_owned()),
        ("took", table::seconds(seconds)),
    ]);
    let value = json!({
        "files": count,
        "paths": report.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>(),
        "bytes": report.bytes,
        "verified": true,
        "byte_exact": report.byte_exact,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(),
    });
    (value, text)
}

/// What a delta holds.
pub fn info(info: &Info, examples: &[Example]) -> (Value, String) {
    let ratio = info.original_bytes as f64 / info.delta_bytes.max(1) as f64;
    let mut text = table::fields(&[
        ("base digest", info.base_sha256.clone()),
        ("format", info.format_version.to_string()),
        (
            "size",
            format!(
                "{} for {}  {ratio:.2}x smaller",
                table::bytes(info.delta_bytes),
                table::bytes(info.original_bytes)
            ),
        ),
    ]);
    text.push_str(&splits(&info.splits));
    for split in &info.splits {
        let examples = examples
            .iter()
            .filter(|example| example.split == split.name);
        text.push('\n');
        text.push_str(&table::wrap(
            &format!(
                "{} rebuilds {}",
                table::plain(&split.name),
                exactness(split.byte_exact)
            ),
            0,
        ));
        text.push_str(&columns(split));
        text.extend(examples.map(describe));
    }
    let value = json!({
        "format_version": info.format_version,
        "base": {"digest": info.base_sha256},
        "original_bytes": info.original_bytes,
        "delta_bytes": info.delta_bytes,
        "ratio": ratio,
        "files": info.splits.iter().map(split_json).collect::<Vec<_>>(),
        "examples": examples.iter().map(example_json).collect::<Vec<_>>(),
    });
    (value, text)
}

fn exactness(byte_exact: bool) -> &'static str {
    if byte_exact {
        "byte for byte"
    } else {
        "with equal schema, metadata and rows, not byte for byte"
    }
}

/// A count in at most nine characters.
fn count(count: u64) -> String {
    if count < 10_000_000 {
        table::count(count)
    } else {
        format!("{:.1}M", count as f64 / 1e6)
    }
}

fn splits(splits: &[SplitReport]) -> String {
    let mut out = format!(
        "\n{:20} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "file", "rows", "kept", "moved", "edited", "new", "stored"
    );
    for split in splits {
        out.push_str(&format!(
            "{:20} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
            table::shorten(&split.name, 20),
            count(split.rows),
            count(split.rows_referenced.saturating_sub(split.rows_edited)),
            count(split.rows_moved),
            count(split.rows_edited),
            count(split.rows_new),
            table::bytes(split.delta_bytes)
        ));
    }
    out
}

fn columns(split: &SplitReport) -> String {
    let mut out = String::new();
    let renamed = split.columns_renamed.iter();
    let computed = split.columns_computed.iter();
    let cast = split.columns_cast.iter();
    for (label, names) in [
        ("columns added", split.columns_added.clone()),
        ("columns dropped", split.columns_dropped.clone()),
        (
            "columns renamed",
            renamed
                .map(|(from, to)| format!("{from} to {to}"))
                .collect(),
        ),
        (
            "columns computed",
            computed
                .map(|(name, from)| format!("{name} from {}", from.join(" and ")))
                .collect(),
        ),
        (
            "columns of another type",
            cast.map(|(name, from, to)| format!("{name}, {from} to {to}"))
                .collect::<Vec<_>>(),
        ),
    ] {
        if !names.is_empty() {
            let names = table::plain(&names.join(", "));
            out.push_str(&table::wrap(&format!("{label}: {names}"), 2));
        }
    }
    if split.columns_reordered {
        out.push_str(&table::wrap("columns stand in another order", 2));
    }
    for rule in &split.column_rules {
        out.push_str(&table::wrap(&table::plain(rule), 2));
    }
    out
}

fn describe(example: &Example) -> String {
    let from = example
        .base_row
        .map_or(String::new(), |row| format!(", base row {row}"));
    let mut out = format!("  example, {} row {}{from}:\n", example.what, example.row);
    for (column, before, after) in &example.cells {
        let column = table::plain(column);
        if let Some(before) = before {
            out.push_str(&table::wrap(&format!("- {column}: {before:?}"), 4));
        }
        // Of a row as it was, a few cells to know it by.
        let mark = match (example.what, before) {
            ("kept" | "moved", None) => ' ',
            _ => '+',
        };
        out.push_str(&table::wrap(&format!("{mark} {column}: {after:?}"), 4));
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
        "columns_renamed": split.columns_renamed.iter().map(|(from, to)| json!({
            "from": from,
            "to": to,
        })).collect::<Vec<_>>(),
        "columns_computed": split.columns_computed.iter().map(|(column, from)| json!({
            "column": column,
            "from": from,
        })).collect::<Vec<_>>(),
        "columns_cast": split.columns_cast.iter().map(|(column, from, to)| json!({
            "column": column,
            "from": from,
            "to": to,
        })).collect::<Vec<_>>(),
        "columns_reordered": split.columns_reordered,
        "column_rules": split.column_rules,
    })
}

fn example_json(example: &Example) -> Value {
    json!({
        "file": example.split,
        "what": example.what,
        "row": example.row,
        "base_row": example.base_row,
        "cells": example.cells.iter().map(|(column, before, after)| json!({
            "column": column,
            "base": before,
            "value": after,
        })).collect::<Vec<_>>(),
    })
}
