//! What is decided about a file before its rows are written: which base row
//! each row comes from, the plan of its columns, the coder of its new text.

use std::path::Path;

use crate::delta::ModelSize;
use crate::error::{Error, Result};
use crate::inputs::Base;
use crate::matching::{HashMatrix, Matcher, NEW, column_pairs, match_similar};
use crate::plan::{Plan, Sample, column_plans, missed_bytes, sample_rows};
use crate::spec::{CompressSpec, Effort, Progress, step};
use crate::table::{Record, Rows};

/// Everything that is decided about a split before its rows are written.
pub(crate) struct Decided {
    pub(crate) plan: Plan,
    pub(crate) references: Vec<u32>,
    pub(crate) columns: Vec<String>,
    pub(crate) model: Option<ModelSize>,
}

pub(crate) fn decide(
    base: &mut Base,
    base_hashes: &HashMatrix,
    file: &Path,
    rows: &mut Rows,
    spec: &CompressSpec,
    progress: &dyn Progress,
) -> Result<Decided> {
    let total = u64::from(rows.len());
    let hashes = HashMatrix::of(rows, |done| {
        step(progress, "reading the derivative", done, total)
    })?;
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
    let pairs = column_pairs(base_hashes, &hashes, |column, other| {
        columns[column] == base_names[other]
    });
    let mut references = Matcher::new(base_hashes, pairs, key).match_rows(base_hashes, &hashes);
    drop(hashes);
    step(progress, "finding similar rows", 0, 1)?;
    match_similar(&mut base.rows, rows, &mut references)?;
    let samples = sample_rows(&mut base.rows, rows, &references)?;
    let plan = column_plans(&samples, &columns, &base_names);
    let (in_new_rows, in_others) = new_text(rows, &references, &plan, &samples)?;
    let model = model_size(spec.effort, in_new_rows, in_others, rows.bytes());
    Ok(Decided {
        plan,
        references,
        columns,
        model,
    })
}

/// The text model where its time is in proportion; nothing for zstd.
///
/// The model takes about two seconds for a megabyte, in either direction, and
/// a third of that for one it only learns. So it codes 4 MB at most, or what
/// takes a large file no longer than its referenced rows do. New rows profit
/// from a lesson; beside other rows stands their base row.
fn model_size(effort: Effort, in_new_rows: u64, in_others: u64, file: u64) -> Option<ModelSize> {
    const MEGABYTE: u64 = 1 << 20;
    let bytes = in_new_rows + in_others;
    let (most, lesson) = match effort {
        Effort::Fast => return None,
        Effort::Small => (
            (4 * MEGABYTE).max(file / 200),
            (in_new_rows * 8).min(MEGABYTE),
        ),
        Effort::Smallest => (64 * MEGABYTE, (in_new_rows * 32).min(6 * MEGABYTE)),
    };
    (bytes <= most).then_some(ModelSize { bytes, lesson })
}

/// About how many bytes of new text there are in new rows, and in the cells of
/// other rows that the plan does not give.
fn new_text(
    rows: &mut Rows,
    references: &[u32],
    plan: &Plan,
    samples: &[Sample],
) -> Result<(u64, u64)> {
    let missed = missed_bytes(plan, samples);
    let mut record = Record::default();
    let mut whole = 0u64;
    let new: Vec<u32> = (0..references.len() as u32)
        .filter(|&row| references[row as usize] == NEW)
        .collect();
    let stride = (new.len() / 4096).max(1);
    for &row in new.iter().step_by(stride) {
        rows.read(row, &mut record)?;
        whole += record
            .cells()
            .iter()
            .map(|&cell| record.bytes(cell).len() as u64)
            .sum::<u64>()
            * stride as u64;
    }
    Ok((
        whole,
        (missed * (references.len() - new.len()) as f64) as u64,
    ))
}
