//! A table for people and JSON for everything else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::machine::{self, Machine};
use crate::measure::{Effort, Measurement};
use crate::pair::Pair;

/// Everything that one run found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `base--fine-tune`.
    pub pair: String,
    /// Element type of most tensors.
    pub dtype: String,
    /// Tensors of the fine-tune.
    pub tensors: usize,
    /// Tensors that have a base.
    pub tensors_with_base: usize,
    /// Weights of the fine-tune.
    pub weights: usize,
    /// Bytes of the fine-tune's tensors.
    pub original_bytes: usize,
    /// Fraction of the weights with a base whose bits did not change.
    pub unchanged: Option<f64>,
    /// Timed rounds asked for.
    pub repeats: usize,
    /// Threads that each method may use.
    pub threads: usize,
    /// When, in UTC.
    pub date: String,
    /// What was measured.
    pub commit: Option<String>,
    /// Where.
    pub machine: Machine,
    /// With which tools.
    pub versions: BTreeMap<String, String>,
    /// The outcome per method.
    pub methods: Vec<Measurement>,
}

impl Report {
    /// Puts the measurements beside the facts of the run.
    pub fn new(
        pair: &Pair,
        effort: Effort,
        peers: BTreeMap<String, String>,
        methods: Vec<Measurement>,
    ) -> Self {
        let tensors = &pair.layout.tensors;
        let mut versions = machine::versions();
        versions.extend(peers);
        Self {
            pair: pair.name(),
            dtype: format!("{:?}", pair.layout.main_dtype()),
            tensors: tensors.len(),
            tensors_with_base: tensors.iter().filter(|t| t.base.is_some()).count(),
            weights: pair.layout.weights(),
            original_bytes: pair.fine.len(),
            unchanged: pair.unchanged(),
            repeats: effort.repeats,
            threads: 1,
            date: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            commit: machine::commit(),
            machine: Machine::detect(),
            versions,
            methods,
        }
    }

    /// Writes the JSON file.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The table, at most 80 columns wide.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}\n{} weights in {}, {} bytes; {} unchanged\n\n",
            self.pair,
            grouped(self.weights as u64),
            self.dtype,
            grouped(self.original_bytes as u64),
            self.unchanged
                .map_or("-".to_owned(), |u| format!("{:.1} %", 100.0 * u)),
        );
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<13}{:>14}{:>9}{:>10}{:>12}{:>12}{:>7}",
            "method", "bytes", "bits/w", "of file", "enc GB/s", "dec GB/s", "same"
        );
        for method in &self.methods {
            let _ = match &method.numbers {
                Some(n) => writeln!(
                    text,
                    "{:<13}{:>14}{:>9.3}{:>8.2} %{:>12.3}{:>12.3}{:>7}",
                    method.method,
                    grouped(n.bytes),
                    n.bits_per_weight,
                    100.0 * n.of_original,
                    n.encode_gb_per_s,
                    n.decode_gb_per_s,
                    if n.byte_identical { "yes" } else { "NO" },
                ),
                None => {
                    let why = method.error.as_deref().unwrap_or("no result");
                    writeln!(text, "{:<13} {}", method.method, shortened(why, 66))
                }
            };
        }
        let changed = |m: &&Measurement| m.numbers.as_ref().is_some_and(|n| !n.byte_identical);
        for method in self.methods.iter().filter(changed) {
            let _ = writeln!(text, "\n{}: {}", method.method, method.about);
        }
        let _ = writeln!(
            text,
            "\nOne thread, time on the CPU; median of up to {} rounds in turn, fewer where one takes seconds.",
            self.repeats
        );
        text
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first line, cut to `width` characters.
fn shortened(text: &str, width: usize) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(width)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(11_713_848), "11,713,848");
        assert_eq!(grouped(123_456), "123,456");
    }
}
