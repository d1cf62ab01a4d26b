//! A split's header in a person's terms.

use crate::header::SplitHeader;
use crate::plan::{Fold, Origin, Piece, Predictor, last_part, type_name};
use crate::spec::SplitReport;

/// A column is said to be computed if its rule gives so many in a hundred cells.
const COMPUTED: u8 = 80;

pub(crate) fn split_report(header: &SplitHeader, delta_bytes: u64) -> SplitReport {
    let counterparts = header.plan.counterparts(&header.columns);
    let base = |column: u32| header.plan.base_columns[column as usize].clone();
    let renamed: Vec<(String, String)> = counterparts
        .iter()
        .zip(&header.columns)
        .filter_map(|(counterpart, name)| {
            let before = base((*counterpart)?);
            (last_part(&before) != last_part(name)).then(|| (before, name.clone()))
        })
        .collect();
    let kept: Vec<String> = counterparts
        .iter()
        .flatten()
        .map(|&column| base(column))
        .collect();
    let gone = |name: &&String| !kept.contains(name);
    let computed = computed(header);
    let added = header.columns.iter().zip(&counterparts).enumerate();
    let added = added.filter(|&(column, (_, base))| base.is_none() && !computed[column]);
    let with_sources = header
        .columns
        .iter()
        .zip(&header.plan.columns)
        .zip(&computed);
    let cast = header.casts.iter().filter_map(|cast| {
        let name = header.columns.get(cast.column as usize)?.clone();
        Some((name, type_name(cast.types.0)?, type_name(cast.types.1)?))
    });
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
        columns_added: added.map(|(_, (name, _))| name.clone()).collect(),
        columns_dropped: header.dropped.iter().filter(gone).cloned().collect(),
        columns_renamed: renamed.clone(),
        columns_computed: with_sources
            .filter(|(_, computed)| **computed)
            .map(|((name, plan), _)| (name.clone(), sources(header, &plan.predictor)))
            .collect(),
        columns_cast: cast.collect(),
        columns_reordered: header.reordered,
        column_rules: rules(header),
    }
}

/// For each column whether the base leads to it by a rule that is more than a
/// copy of the column that it goes back to.
fn computed(header: &SplitHeader) -> Vec<bool> {
    let counterparts = header.plan.counterparts(&header.columns);
    let counterpart = |column: usize| counterparts.get(column).copied().flatten();
    let mut out = vec![false; header.plan.columns.len()];
    // In the order of coding: a column may follow from others that were computed.
    for &column in &header.plan.order {
        let at = column as usize;
        let predictor = &header.plan.columns[at].predictor;
        let copies = predictor
            .copied_base()
            .is_some_and(|base| counterpart(at) == Some(base));
        let from_base = predictor.origins().iter().any(|origin| match *origin {
            Origin::Base(_) => true,
            Origin::Own(own) => out[own as usize] || counterpart(own as usize).is_some(),
        });
        out[at] = from_base && !copies && header.plan.share(at) >= COMPUTED;
    }
    out
}

/// The names of the columns that a predictor looks at.
fn sources(header: &SplitHeader, predictor: &Predictor) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for origin in predictor.origins() {
        let (list, column) = match origin {
            Origin::Base(column) => (&header.plan.base_columns, column),
            Origin::Own(column) => (&header.columns, column),
        };
        let name = list.get(column as usize).cloned().unwrap_or_default();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// "`text` is "Question: " + base `question`", for each column with a rule that
/// mostly holds.
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
    let columns = header.columns.iter().zip(&header.plan.columns).enumerate();
    columns
        .filter_map(|(at, (column, plan))| {
            let rule = format!("{column} = {}", say(&plan.predictor));
            match header.plan.share(at) {
                100 => Some(rule),
                share @ COMPUTED.. => Some(format!("{rule} (in {share} of 100 rows)")),
                _ => None,
            }
        })
        .collect()
}
