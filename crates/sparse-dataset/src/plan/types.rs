//! What kind of values columns hold, and which changed it.

use super::Plan;
use super::sample::Sample;
use crate::table::{Kind, Record};

/// A column whose values are of another type than in the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cast {
    pub(crate) column: u32,
    /// Before and after, see [`type_name`].
    pub(crate) types: (u8, u8),
}

const INTEGER: u8 = 2;
const FLOAT: u8 = 3;
const NAMES: [&str; 5] = ["text", "truth", "integer", "float", "list"];

/// The name of a type; nothing for one that this version does not know.
pub(crate) fn type_name(number: u8) -> Option<&'static str> {
    NAMES.get(usize::from(number)).copied()
}

/// The casts that a sample shows. The cells of delimited text have no types but
/// what they look like: where either side is such, only numbers are compared.
pub(crate) fn casts(
    plan: &Plan,
    samples: &[Sample],
    columns: &[String],
    base_columns: &[String],
    delimited: bool,
) -> Vec<Cast> {
    let counterparts = plan.counterparts(columns).into_iter();
    let cast = |(column, base): (u32, Option<u32>)| {
        let name = &plan.base_columns[base? as usize];
        let place = base_columns.iter().position(|base| base == name)?;
        let with_base = || samples.iter().filter(|sample| sample.base.is_some());
        let before = type_of(
            with_base().filter_map(|s| s.base.as_ref()),
            place,
            delimited,
        )?;
        let after = type_of(with_base().map(|s| &s.own), column as usize, delimited)?;
        let numbers = [before, after]
            .iter()
            .all(|&t| matches!(t, INTEGER | FLOAT));
        let differ = before != after && (numbers || !delimited);
        differ.then_some(Cast {
            column,
            types: (before, after),
        })
    };
    (0..).zip(counterparts).filter_map(cast).collect()
}

/// The type that most cells of a column have; one of integers and floats is of
/// floats.
fn type_of<'a>(
    records: impl Iterator<Item = &'a Record>,
    column: usize,
    delimited: bool,
) -> Option<u8> {
    let mut counts = [0usize; NAMES.len()];
    for record in records {
        let Some((kind, bytes)) = record.get(column) else {
            continue;
        };
        let looked_at = match kind {
            Kind::Null => continue,
            Kind::Nested => 4,
            Kind::Text if !delimited => 0,
            _ => scalar(bytes),
        };
        counts[usize::from(looked_at)] += 1;
    }
    if counts[usize::from(FLOAT)] > 0 {
        counts[usize::from(FLOAT)] += std::mem::take(&mut counts[usize::from(INTEGER)]);
    }
    let most = (0..NAMES.len()).max_by_key(|&at| counts[at])?;
    (counts[most] > 0).then_some(most as u8)
}

fn scalar(bytes: &[u8]) -> u8 {
    match std::str::from_utf8(bytes) {
        Ok("true" | "false" | "True" | "False") => 1,
        Ok(text) if text.parse::<i64>().is_ok() => INTEGER,
        Ok(text) if text.parse::<f64>().is_ok() => FLOAT,
        _ => 0,
    }
}

/// Whether the columns that go back to the base stand in another order there.
pub(crate) fn is_reordered(plan: &Plan, columns: &[String], base_columns: &[String]) -> bool {
    let counterparts = plan.counterparts(columns);
    let names = counterparts
        .iter()
        .flatten()
        .map(|&base| &plan.base_columns[base as usize]);
    let places: Vec<_> = names
        .filter_map(|name| base_columns.iter().position(|base| base == name))
        .collect();
    !places.is_sorted()
}
