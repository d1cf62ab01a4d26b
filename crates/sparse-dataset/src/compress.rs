//! Making a delta.

use std::path::Path;

use crate::artifact::{
    Body, FILE_NAME, FORMAT_VERSION, MAGIC, REQUIRED_BYTES, REQUIRED_COLUMNAR, REQUIRED_LENIENT,
    REQUIRED_NO_HEADER, SplitHeader, checksum,
};
use crate::bytes;
use crate::columnar::{Recipe, equal_files, guarded};
use crate::decide::decide;
use crate::delta::{BlockEncoder, Setup};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::inputs::{Base, add_file, data_files};
use crate::matching::HashMatrix;
use crate::output::Output;
use crate::plan::Plan;
use crate::rebuild::{Block, rebuild};
use crate::report::split_report;
use crate::spec::{CompressReport, CompressSpec, Effort, Progress, SplitReport, step};
use crate::table::{Rows, Source};
use crate::text::Template;
use crate::wire::{put_bytes, put_number};

/// Rows of a block, and bytes of derivative that end it earlier.
const BLOCK_ROWS: u32 = 1 << 15;

/// Writes the delta from `base` to `derivative` (each a file or a folder of
/// splits) into the folder `output`, which must exist.
///
/// # Errors
/// Every variant of [`Error`] that concerns inputs; nothing is left behind.
pub fn compress(
    base: &Path,
    derivative: &Path,
    output: &Path,
    spec: &CompressSpec,
    progress: &dyn Progress,
) -> Result<CompressReport> {
    let files = data_files(derivative)?;
    let mut base = Base::open(base, spec.text(), None)?;
    let total = u64::from(base.rows.len());
    let hashes = HashMatrix::of(&mut base.rows, |done| {
        step(progress, "reading the base", done, total)
    })?;
    let mut artifact = Output::create(&output.join(FILE_NAME))?;
    let mut head = MAGIC.to_vec();
    let columnar = files
        .iter()
        .any(|file| Format::of(file).is_ok_and(|format| !format.is_text()));
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let required = REQUIRED_BYTES
        | bit(columnar, REQUIRED_COLUMNAR)
        | bit(spec.lenient, REQUIRED_LENIENT)
        | bit(!spec.header, REQUIRED_NO_HEADER);
    head.extend_from_slice(&[FORMAT_VERSION, required, 0]);
    head.extend_from_slice(&base.sha256);
    put_number(&mut head, files.len() as u64);
    artifact.write(&head)?;
    let mut splits = Vec::new();
    for file in &files {
        splits.push(compress_split(
            &mut base,
            &hashes,
            file,
            spec,
            &mut artifact,
            progress,
        )?);
    }
    let check = checksum(artifact.digest());
    artifact.write(&check)?;
    let report = CompressReport {
        derivative_bytes: splits.iter().map(|split: &SplitReport| split.bytes).sum(),
        delta_bytes: artifact.written,
        byte_exact: splits.iter().all(|split| split.byte_exact),
        splits,
    };
    artifact.commit()?;
    Ok(report)
}

fn compress_split(
    base: &mut Base,
    base_hashes: &HashMatrix,
    file: &Path,
    spec: &CompressSpec,
    artifact: &mut Output,
    progress: &dyn Progress,
) -> Result<SplitReport> {
    let (source, sha256) = Source::open(file)?;
    let bytes = source.len;
    let mut rows = Rows::default();
    add_file(&mut rows, source, spec.text(), false)?;
    let decided = decide(base, base_hashes, file, &mut rows, spec, progress)?;
    let dropped = base
        .rows
        .columns
        .names
        .iter()
        .filter(|name| rows.columns.find(name).is_none())
        .cloned()
        .collect();
    let (layout, templates) = match rows.text() {
        Some(table) => (
            Some(table.parser.layout.clone()),
            table.parser.templates.list.clone(),
        ),
        None => (None, vec![Template::columnar(decided.columns.len())]),
    };
    let mut resolved = decided.plan.clone();
    resolved.resolve(&mut base.rows.columns);
    let setup = Setup {
        plan: resolved,
        templates: templates.clone(),
        model: decided.model,
    };
    let level = if spec.effort == Effort::Fast { 3 } else { 19 };
    let mut encoder = BlockEncoder::new(setup, &mut base.rows, level)?;
    let mut blocks = Vec::new();
    let mut first = 0u32;
    while (first as usize) < decided.references.len() {
        step(
            progress,
            "writing",
            u64::from(first),
            decided.references.len() as u64,
        )?;
        let end = (first as usize + BLOCK_ROWS as usize).min(decided.references.len());
        let block = encoder.block(
            first,
            &decided.references[first as usize..end],
            &mut rows,
            &mut base.rows,
        )?;
        blocks.push((end as u32 - first, block));
        first = end as u32;
    }
    let mut header = SplitHeader {
        name: file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        format: Format::of(file)?,
        bytes,
        sha256,
        byte_exact: true,
        body: Body::Text,
        layout,
        model: decided.model,
        plan: decided.plan,
        templates,
        columns: decided.columns,
        dropped,
        counts: encoder.counts,
        patch: None,
    };
    drop(rows);
    if !header.format.is_text() {
        columnar_body(&mut header, &blocks, file, base, spec, artifact, progress)?;
    }
    let mut coded = with_header(&header, &blocks);
    if coded.len() as u64 > bytes / 20
        && bytes <= bytes::LARGEST
        && header.byte_exact
        && (header.model.is_none() || header.patch.is_some())
    {
        // Never much larger than what a byte compressor makes of the file.
        let whole = std::fs::read(file).map_err(Error::io(file))?;
        if let Some(packed) = bytes::pack(&whole, &base.prefix()?) {
            let plain = SplitHeader {
                body: Body::Bytes,
                layout: None,
                plan: Plan::default(),
                templates: Vec::new(),
                columns: Vec::new(),
                patch: None,
                ..header.clone()
            };
            let other = with_header(&plain, &[(1, packed)]);
            if other.len() < coded.len() {
                header = plain;
                coded = other;
            }
        }
    }
    artifact.write(&coded)?;
    Ok(split_report(&header, coded.len() as u64))
}

/// A split as it stands in the artifact.
fn with_header(header: &SplitHeader, blocks: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, &header.write());
    for (rows, block) in blocks {
        put_number(&mut out, u64::from(*rows));
        put_bytes(&mut out, block);
    }
    put_number(&mut out, 0);
    out
}

/// Finds how a columnar file is rebuilt, by rebuilding it: with its bytes, by
/// a patch with its bytes, or with its content.
fn columnar_body(
    header: &mut SplitHeader,
    blocks: &[(u32, Vec<u8>)],
    file: &Path,
    base: &mut Base,
    spec: &CompressSpec,
    artifact: &Output,
    progress: &dyn Progress,
) -> Result<()> {
    let recipe = guarded(file, || Recipe::of(file)?.write(file))?;
    header.body = Body::Columnar(recipe);
    let views: Vec<Block<'_>> = blocks
        .iter()
        .map(|(rows, block)| (*rows, block.as_slice()))
        .collect();
    let mut rebuilt = Output::create(&artifact.beside(&header.name))?;
    rebuild(file, header, &views, base, &mut rebuilt, progress)?;
    let found = rebuilt.digest();
    if found == header.sha256 {
        return Ok(());
    }
    let rebuilt_path = rebuilt.flushed()?;
    if !guarded(file, || equal_files(file, rebuilt_path, header.format))? {
        return Err(Error::Columnar {
            path: file.to_owned(),
            message: "the content could not be rebuilt; please report the file's schema".to_owned(),
        });
    }
    if !spec.logical && header.bytes <= bytes::LARGEST {
        let original = std::fs::read(file).map_err(Error::io(file))?;
        let again = std::fs::read(rebuilt_path).map_err(Error::io(rebuilt_path))?;
        let small = header.bytes / 50
            + blocks
                .iter()
                .map(|(_, block)| block.len() as u64)
                .sum::<u64>()
                / 4;
        if let Some(patch) =
            bytes::pack(&original, &again).filter(|patch| patch.len() as u64 <= small)
        {
            header.patch = Some(patch);
            return Ok(());
        }
    }
    header.byte_exact = false;
    header.sha256 = found;
    Ok(())
}
