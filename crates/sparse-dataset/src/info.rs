//! Explaining a delta to a person.

use std::path::Path;

use crate::artifact::{Artifact, FORMAT_VERSION};
use crate::delta::{BlockDecoder, Setup};
use crate::error::Result;
use crate::inputs::Base;
use crate::output::hex;
use crate::report::split_report;
use crate::spec::{Example, Info};
use crate::table::Record;

/// Longer values are shown by their beginning.
const SHOWN: usize = 160;

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
        base_sha256: hex(&artifact.base_sha256),
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
    let mut base = Base::open(base, artifact.base_options, Some(artifact.base_sha256))?;
    let mut found: Vec<Example> = Vec::new();
    artifact.each_split(|header, blocks, _| {
        let mut plan = header.plan.clone();
        plan.resolve(&mut base.rows.columns);
        let names = base.rows.columns.names.clone();
        let setup = Setup {
            plan,
            templates: header.templates.clone(),
            model: header.model,
        };
        let mut decoder = BlockDecoder::new(setup, &mut base.rows)?;
        let mut row = 0;
        let mut next = 0;
        let first = found.len();
        let mut buffer = Vec::new();
        for (index, count) in blocks.rows().enumerate() {
            let block = blocks.read(index, &mut buffer)?;
            let complete = decoder.block(block, count, &mut base.rows, |_, rows, reference| {
                let what = match reference {
                    _ if rows.own.own == 0 => return Ok(()),
                    None => "new",
                    Some(_) if rows.edited_cells > 0 => "edited",
                    Some((at, _)) if at != next => "moved",
                    Some(_) => "kept",
                };
                next = reference.map_or(next, |(at, _)| at + 1);
                if found[first..].iter().all(|example| example.what != what) {
                    let cells = differences(
                        &rows.own,
                        reference.map(|(_, base)| base),
                        &header.columns,
                        &names,
                    );
                    let base_row = reference.map(|(at, _)| u64::from(at));
                    found.push(Example {
                        split: header.name.clone(),
                        what,
                        row,
                        base_row,
                        cells,
                    });
                }
                row += 1;
                Ok(())
            })?;
            complete.ok_or_else(|| artifact.damaged("block of rows"))?;
        }
        Ok(())
    })?;
    Ok(found)
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    if bytes.len() > SHOWN {
        format!("{text}...")
    } else {
        text.into_owned()
    }
}

/// The cells that differ from those of the same column of the base.
fn differences(
    own: &Record,
    base: Option<&Record>,
    columns: &[String],
    base_names: &[String],
) -> Vec<(String, Option<String>, String)> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let mut out = Vec::new();
    for &cell in own.cells() {
        let Some(name) = columns.get(cell.column as usize) else {
            continue;
        };
        let place = base_names
            .iter()
            .position(|base_name| base_name == name)
            .or_else(|| {
                base_names
                    .iter()
                    .position(|base_name| last(base_name) == last(name))
            });
        let before = place
            .and_then(|place| base?.get(place))
            .map(|(_, bytes)| bytes);
        if before != Some(own.bytes(cell)) {
            out.push((name.clone(), before.map(shown), shown(own.bytes(cell))));
        }
    }
    out
}
