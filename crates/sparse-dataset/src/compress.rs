//! Making a delta.

use std::path::Path;

use sha2::Digest;

use crate::artifact::{Body, FILE_NAME, FORMAT_VERSION, MAGIC, SplitHeader, checksum};
use crate::delta::{BlockEncoder, Setup};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::inputs::{Base, add_file, data_files};
use crate::matching::{HashMatrix, Matcher, column_pairs, match_similar};
use crate::output::Output;
use crate::plan::{Plan, column_plans, sample_rows};
use crate::report::split_report;
use crate::spec::{CompressReport, CompressSpec, Effort, Progress, SplitReport};
use crate::table::{Record, Rows, Source, TextOptions};
use crate::wire::put_number;

/// Rows of a block, and bytes of derivative that end it earlier.
const BLOCK_ROWS: u32 = 1 << 15;
/// New text beyond this goes to zstd: the text model would take too long.
const MODEL_LIMIT: u64 = 4 << 20;

/// Writes the delta from `base` to `derivative` (each a file or a folder of
/// splits) into the folder `output`, which must exist.
///
/// # Errors
/// Every variant of [`Error`] that concerns inputs; nothing is left behind.
pub fn compress(
    base: &Path, derivative: &Path, output: &Path, spec: &CompressSpec, progress: &dyn Progress,
) -> Result<CompressReport> {
    let files = data_files(derivative)?;
    let mut base = Base::open(base, spec.text(), None)?;
    let total = u64::from(base.rows.len());
    let hashes = HashMatrix::of(&mut base.rows, |done| progress.step("reading the base", done, total))?;
    let mut artifact = Output::create(&output.join(FILE_NAME))?;
    let mut head = MAGIC.to_vec();
    let columnar = files.iter().any(|file| Format::of(file).is_ok_and(|format| !format.is_text()));
    head.extend_from_slice(&[FORMAT_VERSION, u8::from(columnar), 0]);
    head.extend_from_slice(&base.sha256);
    put_number(&mut head, files.len() as u64);
    artifact.write(&head)?;
    let mut splits = Vec::new();
    for file in &files {
        splits.push(compress_split(&mut base, &hashes, file, spec, &mut artifact, progress)?);
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

impl CompressSpec {
    pub(crate) fn text(&self) -> TextOptions {
        TextOptions { lenient: self.lenient, header: self.header }
    }
}

/// Everything that is decided about a split before its rows are written.
struct Decided {
    plan: Plan,
    references: Vec<u32>,
    columns: Vec<String>,
    model: Option<u64>,
}

fn decide(
    base: &mut Base, base_hashes: &HashMatrix, file: &Path, rows: &mut Rows, spec: &CompressSpec, progress: &dyn Progress,
) -> Result<Decided> {
    let total = u64::from(rows.len());
    let hashes = HashMatrix::of(rows, |done| progress.step("reading the derivative", done, total))?;
    let columns = rows.columns.names.clone();
    let key = match &spec.key {
        None => None,
        Some(key) => Some(rows.columns.find(key).ok_or_else(|| Error::NoKey {
            path: file.to_owned(),
            key: key.clone(),
            columns: columns.join(", "),
        })? as usize),
    };
    let base_names = base.rows.columns.names.clone();
    let pairs = column_pairs(base_hashes, &hashes, |column, other| columns[column] == base_names[other]);
    let mut references = Matcher::new(base_hashes, pairs, key).match_rows(base_hashes, &hashes);
    drop(hashes);
    progress.step("finding similar rows", 0, 1);
    match_similar(&mut base.rows, rows, &mut references)?;
    let samples = sample_rows(&mut base.rows, rows, &references)?;
    let plan = column_plans(&samples, &columns, &base_names);
    let model = match spec.effort {
        Effort::Fast => None,
        Effort::Small => Some(new_text(rows, &references, &plan, &samples)?).filter(|&bytes| bytes <= MODEL_LIMIT),
    };
    Ok(Decided { plan, references, columns, model })
}

fn compress_split(
    base: &mut Base, base_hashes: &HashMatrix, file: &Path, spec: &CompressSpec, artifact: &mut Output, progress: &dyn Progress,
) -> Result<SplitReport> {
    let (source, sha256) = Source::open(file)?;
    let bytes = source.len;
    let mut rows = Rows::default();
    add_file(&mut rows, source, spec.text(), false)?;
    let decided = decide(base, base_hashes, file, &mut rows, spec, progress)?;
    let dropped = base.rows.columns.names.iter().filter(|name| rows.columns.find(name).is_none()).cloned().collect();
    let (layout, templates) = match rows.text() {
        Some(table) => (Some(table.parser.layout.clone()), table.parser.templates.list.clone()),
        None => (None, Vec::new()),
    };
    let mut resolved = decided.plan.clone();
    resolved.resolve(&mut base.rows.columns);
    let setup = Setup { plan: resolved, templates: templates.clone(), model: decided.model };
    let level = if spec.effort == Effort::Fast { 3 } else { 19 };
    let mut encoder = BlockEncoder::new(setup, base.rows.len(), level);
    let mut blocks = Vec::new();
    let mut first = 0u32;
    while (first as usize) < decided.references.len() {
        progress.step("writing", u64::from(first), decided.references.len() as u64);
        let end = (first as usize + BLOCK_ROWS as usize).min(decided.references.len());
        let block = encoder.block(first, &decided.references[first as usize..end], &mut rows, &mut base.rows)?;
        put_number(&mut blocks, end as u64 - u64::from(first));
        put_number(&mut blocks, block.len() as u64);
        blocks.extend_from_slice(&block);
        first = end as u32;
    }
    put_number(&mut blocks, 0);
    let header = SplitHeader {
        name: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
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
    };
    let head = header.write();
    let mut length = Vec::new();
    put_number(&mut length, head.len() as u64);
    for part in [&length, &head, &blocks] {
        artifact.write(part)?;
    }
    let size = (length.len() + head.len() + blocks.len()) as u64;
    Ok(split_report(&header, size))
}

/// About how many bytes of new text there are: whole new rows, and the cells
/// of other rows that the plan does not give.
fn new_text(rows: &mut Rows, references: &[u32], plan: &Plan, samples: &[crate::plan::Sample]) -> Result<u64> {
    let missed = crate::plan::missed_bytes(plan, samples);
    let mut record = Record::default();
    let mut whole = 0u64;
    let new: Vec<u32> =
        (0..references.len() as u32).filter(|&row| references[row as usize] == crate::matching::NEW).collect();
    let stride = (new.len() / 4096).max(1);
    for &row in new.iter().step_by(stride) {
        rows.read(row, &mut record)?;
        whole += record.cells().iter().map(|&cell| record.bytes(cell).len() as u64).sum::<u64>() * stride as u64;
    }
    Ok(whole + (missed * (references.len() - new.len()) as f64) as u64)
}
