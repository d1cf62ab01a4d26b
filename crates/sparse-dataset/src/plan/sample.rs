//! A sample of rows, from which plans are made and judged.

use super::{ColumnPlan, Known, Plan, Predictor};
use crate::error::Result;
use crate::matching::NEW;
use crate::table::{Record, Rows};

/// Rows looked at.
const SAMPLE: usize = 384;

/// Rows of the derivative, spread over it, with their base rows.
pub(crate) struct Sample {
    /// Its place in the file.
    pub(crate) row: u32,
    pub(crate) base: Option<Record>,
    pub(crate) own: Record,
}

/// Reads the sample.
pub(crate) fn sample_rows(
    base: &mut Rows,
    derivative: &mut Rows,
    references: &[u32],
) -> Result<Vec<Sample>> {
    let mut out = Vec::new();
    let stride = (references.len() / SAMPLE).max(1);
    for row in (0..references.len()).step_by(stride) {
        let mut own = Record::default();
        derivative.read(row as u32, &mut own)?;
        if own.own == 0 {
            continue;
        }
        let mut found = None;
        if references[row] != NEW {
            let mut record = Record::default();
            base.read(references[row], &mut record)?;
            found = Some(record);
        }
        out.push(Sample {
            row: row as u32,
            base: found,
            own,
        });
    }
    Ok(out)
}

/// Of a row with a base row, on average: how many bytes the plan misses, and
/// how many its base row has where it misses any.
pub(crate) fn missed_bytes(plan: &Plan, samples: &[Sample]) -> (f64, f64) {
    let with_base: Vec<(&Sample, &Record)> = samples
        .iter()
        .filter_map(|sample| Some((sample, sample.base.as_ref()?)))
        .collect();
    let mut missed = vec![0usize; with_base.len()];
    for (
        column,
        ColumnPlan {
            predictor,
            kind,
            basis,
        },
    ) in plan.columns.iter().enumerate()
    {
        if *predictor == Predictor::Next {
            // Samples are too far apart to follow it.
            continue;
        }
        // Cells that resemble the base's are edits, of which little is new.
        let share = if basis.is_some() { 4 } else { 1 };
        let mut known = Known::default();
        for ((sample, base), missed) in with_base.iter().zip(&mut missed) {
            let Some((own_kind, bytes)) = sample.own.get(column) else {
                continue;
            };
            let hit = predictor
                .predict(*kind, &known, Some(base), &sample.own, 0)
                .is_some_and(|(kind, expected)| kind == own_kind && *expected == *bytes);
            if !hit {
                *missed += bytes.len() / share;
            }
            known.learn(predictor, Some(base), &sample.own, own_kind, bytes);
        }
    }
    let rows = with_base.len().max(1) as f64;
    let beside = with_base
        .iter()
        .zip(&missed)
        .filter(|(_, missed)| **missed > 0);
    let beside: usize = beside.map(|((_, base), _)| base.len()).sum();
    (
        missed.iter().sum::<usize>() as f64 / rows,
        beside as f64 / rows,
    )
}
