//! From cells back to typed columns.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Field, Fields, SchemaRef};

use super::leaves;
use super::values::{Values, array};
use crate::table::{Kind, Record};

/// Collects rows into a record batch.
pub(crate) struct BatchBuilder {
    schema: SchemaRef,
    columns: Vec<Values>,
    /// Rows collected.
    pub(crate) rows: usize,
}

impl BatchBuilder {
    pub(crate) fn new(schema: SchemaRef) -> Self {
        let columns = leaves(&schema).iter().map(|_| Values::default()).collect();
        Self {
            schema,
            columns,
            rows: 0,
        }
    }

    /// Adds a row; its cells may stand in any order.
    pub(crate) fn push(&mut self, row: &Record) {
        for column in &mut self.columns {
            column.push(None);
        }
        for &cell in row.cells() {
            if cell.kind != Kind::Null
                && let Some(column) = self.columns.get_mut(cell.column as usize)
            {
                column.set_last(row.bytes(cell));
            }
        }
        self.rows += 1;
    }

    /// Bytes of the values collected.
    pub(crate) fn bytes(&self) -> usize {
        self.columns.iter().map(Values::bytes).sum()
    }

    /// The rows so far as a batch. `None` if a value is not of its column's
    /// type, which only a damaged delta can bring about.
    pub(crate) fn finish(&mut self) -> Option<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        let mut columns = self.columns.iter_mut().map(Values::take);
        let arrays: Option<Vec<ArrayRef>> = self
            .schema
            .fields()
            .iter()
            .map(|field| column_array(field, &mut columns, rows))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays?, &options).ok()
    }
}

/// Builds a field from the next leaves.
fn column_array(
    field: &Field,
    columns: &mut impl Iterator<Item = Values>,
    rows: usize,
) -> Option<ArrayRef> {
    let DataType::Struct(fields) = field.data_type() else {
        return array(field.data_type(), &columns.next()?);
    };
    let nulls = if field.is_nullable() {
        columns.next()?.nulls()
    } else {
        None
    };
    let mut children = Vec::new();
    for child in fields {
        children.push(column_array(child, columns, rows)?);
    }
    struct_array(fields, children, nulls, rows)
}

pub(super) fn struct_array(
    fields: &Fields,
    children: Vec<ArrayRef>,
    nulls: Option<NullBuffer>,
    rows: usize,
) -> Option<ArrayRef> {
    if fields.is_empty() {
        return Some(Arc::new(StructArray::new_empty_fields(rows, nulls)));
    }
    Some(Arc::new(
        StructArray::try_new(fields.clone(), children, nulls).ok()?,
    ))
}
