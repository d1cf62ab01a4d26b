//! Parquet and Arrow: typed columns to cells and back.

mod build;
mod output;
mod read;
mod recipe;
mod render;

pub(crate) use output::ColumnarOutput;
pub(crate) use read::{batches as batches_as_written, equal_files, read_rows};
pub(crate) use recipe::Recipe;

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};

/// A column as the tables see it: structs are taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// Dotted path.
    pub(crate) name: String,
    pub(crate) part: Part,
}

/// What a [`Leaf`] holds.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// Values of a type.
    Values(DataType),
    /// Whether a nullable struct is there.
    Presence,
}

/// The leaves of a schema, depth first.
pub(crate) fn leaves(schema: &Schema) -> Vec<Leaf> {
    let mut out = Vec::new();
    for field in schema.fields() {
        push_leaves(field, "", &mut out);
    }
    out
}

fn push_leaves(field: &Arc<Field>, prefix: &str, out: &mut Vec<Leaf>) {
    let name = format!("{prefix}{}", field.name());
    match field.data_type() {
        DataType::Struct(children) => {
            if field.is_nullable() {
                out.push(Leaf { name: name.clone(), part: Part::Presence });
            }
            for child in children {
                push_leaves(child, &format!("{name}."), out);
            }
        }
        other => out.push(Leaf { name, part: Part::Values(other.clone()) }),
    }
}
