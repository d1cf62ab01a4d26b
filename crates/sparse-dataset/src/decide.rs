//! What is decided about a file before its rows are written: which base row
//! each row comes from, the plan of its columns, the coder of its new text.

use std::path::Path;

use crate::delta::ModelSize;
use crate::error::{Error, Result};
use crate::inputs::Base;
use crate::matching::{HashMatrix, INDEX_ROWS, Matcher, NEW, column_pairs, match_similar};
use crate::plan::{
    Cast, Plan, Sample, casts, column_plans, is_reordered, missed_bytes, sample_rows,
};
use crate::spec::{CompressSpec, Effort, Progress, SMALL_FILE, step};
use crate::table::{Record, Rows};
use crate::text::Columns;

/// Everything that is decided about a split before its rows are written.
pub(crate) struct Decided {
    pub(crate) plan: Plan,
    pub(crate) references: Vec<u32>,
    pub(crate) columns: Vec<String>,
    pub(crate) model: Option<ModelSize>,
    pub(crate) casts: Vec<Cast>,
    pub(crate) reordered: bool,
    /// The column that the user named as the key.
    pub(crate) key: Option<u32>,
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
        Some(key) => {
            let find = |path: &Path, columns: &Columns| {
                columns.find(key).ok_or_else(|| Error::NoKey {
                    path: path.to_owned(),
                    key: key.clone(),
                    columns: columns.names.join(", "),
                })
            };
            let own = find(file, &rows.columns)? as usize;
            Some((own, find(&base.path, &base.rows.columns)? as usize))
        }
    };
    let base_names = base.rows.columns.names.clone();
    let pairs = column_pairs(base_hashes, &hashes, |column, other| {
        columns[column] == base_names[other]
    });
    let hashes = hashes.put_away(file)?;
    let mut matcher = Matcher::new(base_hashes, pairs, key, INDEX_ROWS);
    let mut references = matcher.match_rows(base_hashes, &hashes)?;
    drop((matcher, hashes));
    step(progress, "finding similar rows", 0, 1)?;
    match_similar(&mut base.rows, rows, &mut references)?;
    let samples = sample_rows(&mut base.rows, rows, &references)?;
    let plan = column_plans(&samples, &columns, &base_names);
    let delimited = rows.is_delimited() || base.rows.is_delimited();
    let casts = casts(&plan, &samples, &columns, &base_names, delimited);
    let reordered = is_reordered(&plan, &columns, &base_names);
    let text = new_text(rows, &references, &plan, &samples)?;
    let model = model_size(spec.effort, text, rows.bytes());
    Ok(Decided {
        plan,
        references,
        columns,
        model,
        casts,
        reordered,
        key: key.map(|(own, _)| own as u32),
    })
}

/// About how much text is new in a file, in bytes.
#[derive(Clone, Copy)]
struct NewText {
    in_new_rows: u64,
    /// In cells of other rows that the plan does not give.
    in_others: u64,
    /// The base rows beside those cells, which the text model is shown.
    beside: u64,
}

/// The text model where its time is in proportion; nothing for zstd.
///
/// The model takes about two seconds for a megabyte, in either direction, a
/// third of that for one it only learns, and a tenth for one it is shown. In
/// small files it may take six seconds. Larger ones are rebuilt at 200 MB/s or
/// more, of which it may take a fifth. New rows profit from a lesson; beside
/// other rows stands their base row.
fn model_size(effort: Effort, text: NewText, file: u64) -> Option<ModelSize> {
    const MEGABYTE: u64 = 1 << 20;
    let bytes = text.in_new_rows + text.in_others;
    let (lesson, most) = match effort {
        Effort::Fast => return None,
        Effort::Small if file <= SMALL_FILE => (MEGABYTE, 3 * MEGABYTE),
        Effort::Small => (MEGABYTE, file / 2_000),
        Effort::Smallest => (6 * MEGABYTE, 96 * MEGABYTE),
    };
    let repeats = if effort == Effort::Smallest { 32 } else { 8 };
    let lesson = (text.in_new_rows * repeats).min(lesson);
    let cost = bytes + lesson / 3 + text.beside / 10;
    (cost <= most).then_some(ModelSize { bytes, lesson })
}

/// Looks at new rows, and at the sample of the others.
fn new_text(
    rows: &mut Rows,
    references: &[u32],
    plan: &Plan,
    samples: &[Sample],
) -> Result<NewText> {
    let mut record = Record::default();
    let mut in_new_rows = 0u64;
    let new: Vec<u32> = (0..references.len() as u32)
        .filter(|&row| references[row as usize] == NEW)
        .collect();
    let stride = (new.len() / 4096).max(1);
    for &row in new.iter().step_by(stride) {
        rows.read(row, &mut record)?;
        in_new_rows += record
            .cells()
            .iter()
            .map(|&cell| record.bytes(cell).len() as u64)
            .sum::<u64>()
            * stride as u64;
    }
    let (missed, beside) = missed_bytes(plan, samples);
    let others = (references.len() - new.len()) as f64;
    Ok(NewText {
        in_new_rows,
        in_others: (missed * others) as u64,
        beside: (beside * others) as u64,
    })
}
