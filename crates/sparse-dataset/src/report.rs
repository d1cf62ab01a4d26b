//! A split's header in a person's terms.

use crate::header::SplitHeader;
use crate::plan::{Fold, Origin, Piece, Predictor};
use crate::spec::SplitReport;

pub(crate) fn split_report(header: &SplitHeader, delta_bytes: u64) -> SplitReport {
    SplitReport {
        name: header.name.clone(),
        format: header.format,
        bytes: header.bytes,
        delta_bytes,
        byte_exact: header.byte_exact,
        rows: header.counts.rows,
        rows_referenced: header.counts.referenced,
        rows_moved: header.counts.moved,
        rows_edited: header.counts.edited,
        rows_new: header.counts.new,
        columns_added: added(header),
        columns_dropped: header.dropped.clone(),
        column_rules: rules(header),
    }
}

/// The columns that no base column of the same last name is a source of.
fn added(header: &SplitHeader) -> Vec<String> {
    let copied = |column: usize| match header.plan.columns.get(column).map(|plan| &plan.predictor) {
        Some(Predictor::Concat(pieces)) => {
            matches!(pieces.as_slice(), [Piece::Cell(Origin::Base(_), Fold::As)])
        }
        Some(Predictor::Element(Origin::Base(_))) => true,
        _ => false,
    };
    header
        .columns
        .iter()
        .enumerate()
        .filter(|(column, _)| !copied(*column))
        .map(|(_, name)| name.clone())
        .collect()
}

/// "`text` is "Question: " + base `question`", for each column with a rule.
fn rules(header: &SplitHeader) -> Vec<String> {
    let name = |origin: Origin| match origin {
        Origin::Base(column) => format!(
            "base {}",
            header
                .plan
                .base_columns
                .get(column as usize)
                .map_or("?", String::as_str)
        ),
        Origin::Own(column) => header
            .columns
            .get(column as usize)
            .cloned()
            .unwrap_or_default(),
    };
    let say = |predictor: &Predictor| match predictor {
        Predictor::Previous => "the value of the row before".to_owned(),
        Predictor::Next => "one more than in the row before".to_owned(),
        Predictor::Concat(pieces) => pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => format!("{:?}", String::from_utf8_lossy(text)),
                Piece::Cell(origin, Fold::As) => name(*origin),
                Piece::Cell(origin, Fold::Lower) => format!("lower({})", name(*origin)),
                Piece::Cell(origin, Fold::Upper) => format!("upper({})", name(*origin)),
            })
            .collect::<Vec<_>>()
            .join(" + "),
        Predictor::After(origin, mark) => format!(
            "{} after {:?}",
            name(*origin),
            String::from_utf8_lossy(mark)
        ),
        Predictor::Before(origin, mark) => format!(
            "{} before {:?}",
            name(*origin),
            String::from_utf8_lossy(mark)
        ),
        Predictor::Element(origin) => format!("an element of {}", name(*origin)),
        Predictor::Learned(origin) => format!("a mapping of {}", name(*origin)),
    };
    header
        .columns
        .iter()
        .zip(&header.plan.columns)
        .map(|(column, plan)| format!("{column} = {}", say(&plan.predictor)))
        .collect()
}
