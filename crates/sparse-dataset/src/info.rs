//! Explaining a delta to a person.

use std::path::Path;

use crate::artifact::{Artifact, FORMAT_VERSION};
use crate::columnar::{Recipe, guarded, scales};
use crate::delta::{BlockDecoder, Decoded, Setup, Tally};
use crate::error::Result;
use crate::header::Body;
use crate::output::hex;
use crate::report::split_report;
use crate::spec::{Example, Info, Reading};
use crate::table::{Record, Scales, is_tail};

/// Bytes shown of a longer value.
const SHOWN: usize = 160;
/// Cells shown of a row that equals the base's.
const CELLS: usize = 3;
/// Of the bytes shown, those before the first that differs from the base's.
const CONTEXT: usize = 40;

/// What a delta holds, without its base.
///
/// # Errors
/// When the delta cannot be read.
pub fn info(delta: &Path) -> Result<Info> {
    let artifact = Artifact::open(delta)?;
    let mut splits = Vec::new();
    artifact.each_split(|header, _, bytes| {
        splits.push(split_report(header, bytes));
        Ok(())
    })?;
    Ok(Info {
        format_version: FORMAT_VERSION,
        base_sha256: hex(&artifact.base.sha256),
        delta_bytes: artifact.len(),
        original_bytes: splits.iter().map(|split| split.bytes).sum(),
        splits,
    })
}

/// One example of each kind of row, per file.
///
/// # Errors
/// When the delta or its base cannot be read, or do not belong together.
pub fn examples(delta: &Path, base: &Path) -> Result<Vec<Example>> {
    let artifact = Artifact::open(delta)?;
    let reading = Reading {
        threads: 1,
        progress: &(),
    };
    let mut base = artifact.open_base(base, reading)?;
    let mut found: Vec<Example> = Vec::new();
    artifact.each_split(|header, blocks, _| {
        if header.body == Body::Bytes {
            // Its rows were not cheaper than its bytes, and are not there.
            return Ok(());
        }
        let scales = match &header.body {
            Body::Columnar(recipe) => guarded(&artifact.path, || {
                let recipe = Recipe::read(recipe).ok_or_else(|| artifact.damaged("recipe"))?;
                Ok(scales(&recipe.schema))
            })?,
            _ => Scales::new(),
        };
        let mut setup = Setup::new(
            &header.plan,
            &header.columns,
            &scales,
            header.templates.clone(),
            header.model,
            &mut base.rows,
        );
        setup.paragraphs = header.paragraphs;
        setup.key = header.key;
        let headers = base.rows.headers();
        let mut decoder = BlockDecoder::new(setup, &mut base.rows)?;
        let mut tally = Tally::default();
        let first = found.len();
        let is_document = header.format.has_paragraphs();
        let total = blocks.rows().map(|rows| rows as usize).sum();
        let mut records = 0u32..;
        let mut buffer = Vec::new();
        for (index, count) in blocks.rows().enumerate() {
            let block = blocks.read(index, &mut buffer)?;
            let complete = decoder.block(block, count, &mut base.rows, |setup, row| {
                let record = records.next().unwrap_or_default();
                let Decoded::Cells(rows, reference) = row else {
                    return Ok(());
                };
                if rows.own.own == 0 || is_document && is_tail(record, total) {
                    return Ok(());
                }
                let reference = reference.filter(|(_, base)| setup.is_of(rows, base));
                let edited = reference.is_some_and(|(_, base)| setup.is_edited(rows, base));
                let row = tally.counts.rows;
                let what = tally.row(reference.map(|(at, _)| at), edited);
                if found[first..].iter().all(|example| example.what != what) {
                    let base = reference.map(|(_, base)| base);
                    let mut cells = differences(setup, &rows.own, base, &header.columns);
                    if cells.is_empty() {
                        // What is as it was, to know the row by.
                        cells = differences(setup, &rows.own, None, &header.columns);
                        cells.truncate(CELLS);
                    }
                    found.push(Example {
                        split: header.name.clone(),
                        what,
                        row,
                        base_row: reference.map(|(at, _)| {
                            // A header line is no row to a person.
                            let before = headers.partition_point(|&header| header < at);
                            u64::from(at) - before as u64
                        }),
                        cells,
                    });
                }
                Ok(())
            })?;
            complete.ok_or_else(|| artifact.damaged("block of rows"))?;
        }
        base.rows.set_unused(decoder.into_unused());
        Ok(())
    })?;
    Ok(found)
}

/// A value; of one that is long, from where it matters.
fn shown(bytes: &[u8], from: usize) -> String {
    let is_start = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let from = (0..=from.min(bytes.len()))
        .rev()
        .find(is_start)
        .unwrap_or(0);
    let end = (from + SHOWN).min(bytes.len());
    let end = (from..=end).rev().find(is_start).unwrap_or(end);
    let text = String::from_utf8_lossy(&bytes[from..end]);
    let before = if from > 0 { "..." } else { "" };
    let after = if end < bytes.len() { "..." } else { "" };
    format!("{before}{text}{after}")
}

/// Where to show two values from, so that their first difference is seen.
fn window(one: &[u8], other: &[u8]) -> usize {
    let same = one.iter().zip(other).take_while(|(a, b)| a == b).count();
    if same + CONTEXT < SHOWN {
        0
    } else {
        same - CONTEXT
    }
}

/// The cells that differ from those they go back to in the base.
fn differences(
    setup: &Setup,
    own: &Record,
    base: Option<&Record>,
    columns: &[String],
) -> Vec<(String, Option<String>, String)> {
    let mut out = Vec::new();
    for &cell in own.cells() {
        let Some(name) = columns.get(cell.column as usize) else {
            continue;
        };
        let value = (cell.kind, own.bytes(cell));
        let counterpart = setup.counterpart(cell.column);
        let before = counterpart.and_then(|counterpart| {
            let cell = base?.get(counterpart.base as usize)?;
            Some((cell, counterpart.same(cell, value)))
        });
        match before {
            Some((_, true)) => {}
            Some(((_, before), false)) => {
                let from = window(before, value.1);
                out.push((
                    name.clone(),
                    Some(shown(before, from)),
                    shown(value.1, from),
                ));
            }
            None => out.push((name.clone(), None, shown(value.1, 0))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_difference_is_seen() {
        let before = "\u{e9}".repeat(200) + "one" + &"x".repeat(300);
        let after = before.replace("one", "two");
        let from = window(before.as_bytes(), after.as_bytes());
        let (before, after) = (
            shown(before.as_bytes(), from),
            shown(after.as_bytes(), from),
        );
        assert_ne!(before, after);
        for text in [before, after] {
            assert!(
                text.starts_with("...\u{e9}") && text.ends_with("x..."),
                "{text}"
            );
            assert!(text.len() <= SHOWN + 6);
        }
        assert_eq!(shown(b"short", 0), "short");
        assert_eq!(window(b"abc", b"abd"), 0);
    }
}
