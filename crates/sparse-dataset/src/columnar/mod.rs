//! Parquet and Arrow: typed columns to cells and back.

mod build;
mod output;
mod read;
mod recipe;
mod render;

pub(crate) use output::ColumnarOutput;
pub(crate) use read::{batches as batches_as_written, equal_files, read_rows};
pub(crate) use recipe::Recipe;

use arrow_schema::{DataType, Field, Schema};

/// The names of a schema's columns as the tables see them: structs are taken
/// apart, a nullable one has a column for whether it is there.
pub(crate) fn leaves(schema: &Schema) -> Vec<String> {
    let mut out = Vec::new();
    for field in schema.fields() {
        push_leaves(field, "", &mut out);
    }
    out
}

fn push_leaves(field: &Field, prefix: &str, out: &mut Vec<String>) {
    let name = format!("{prefix}{}", field.name());
    match field.data_type() {
        DataType::Struct(children) => {
            if field.is_nullable() {
                out.push(name.clone());
            }
            for child in children {
                push_leaves(child, &format!("{name}."), out);
            }
        }
        _ => out.push(name),
    }
}
