//! Parquet and Arrow: typed columns to cells and back.

mod batch;
mod build;
mod declared;
mod dictionaries;
mod messages;
mod output;
mod paged;
mod pages;
mod read;
mod recipe;
mod render;
mod values;
mod writer;

pub(crate) use output::{ColumnarRows, Piece};
pub(crate) use paged::{Frame, Learner, Script};
pub(crate) use read::{batches as batches_as_written, equal_files, keeps_dictionaries, read_rows};
pub(crate) use recipe::Recipe;

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use arrow_schema::{DataType, Field, Fields, IntervalUnit, Schema};

use crate::error::{Error, Result};
use crate::table::Scales;

/// Runs the Parquet and Arrow readers, which panic on some damaged files, and
/// turns that into an error.
pub(crate) fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Whatever the work was building is dropped with it.
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::Columnar {
            path: path.to_owned(),
            message: "damaged: its pages do not fit its metadata".to_owned(),
        })
    })
}

/// The names of a schema's columns as the tables see them: structs are taken
/// apart, a nullable one has a column for whether it is there.
pub(crate) fn leaves(schema: &Schema) -> Vec<String> {
    let named = |name: fn(&Field) -> String| {
        let mut out = Vec::new();
        for field in schema.fields() {
            push_leaves(field, "", name, &mut out);
        }
        out
    };
    let plain = named(|field| field.name().clone());
    let distinct: HashSet<&String> = plain.iter().collect();
    if distinct.len() == plain.len() {
        return plain;
    }
    // `a.b` may stand beside the member `b` of a struct `a`.
    named(|field| field.name().replace('.', "\\."))
}

/// Whether all columns are of types that rows can be made of.
fn is_supported(schema: &Schema) -> bool {
    let fields = schema.fields();
    fields.iter().all(|field| has_cells(field.data_type()))
}

fn has_cells(data_type: &DataType) -> bool {
    match data_type {
        DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::RunEndEncoded(..)
        | DataType::Union(..)
        | DataType::Interval(IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => false,
        DataType::Struct(fields) => fields.iter().all(|field| has_cells(field.data_type())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_cells(field.data_type()),
        DataType::Dictionary(_, value) => has_cells(value),
        _ => true,
    }
}

/// How many digits of the decimals in a schema stand behind the point.
pub(crate) fn scales(schema: &Schema) -> Scales {
    let mut out = Scales::new();
    push_scales(schema.fields(), "", &mut out);
    out
}

fn push_scales(fields: &Fields, prefix: &str, out: &mut Scales) {
    for field in fields {
        let name = format!("{prefix}{}", field.name());
        match field.data_type() {
            DataType::Struct(children) => push_scales(children, &format!("{name}."), out),
            DataType::Decimal32(_, scale)
            | DataType::Decimal64(_, scale)
            | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => {
                out.insert(name, *scale);
            }
            _ => {}
        }
    }
}

fn push_leaves(field: &Field, prefix: &str, named: fn(&Field) -> String, out: &mut Vec<String>) {
    let name = format!("{prefix}{}", named(field));
    match field.data_type() {
        DataType::Struct(children) => {
            if field.is_nullable() {
                out.push(name.clone());
            }
            for child in children {
                push_leaves(child, &format!("{name}."), named, out);
            }
        }
        _ => out.push(name),
    }
}
