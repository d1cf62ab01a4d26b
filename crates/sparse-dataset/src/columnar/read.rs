//! Reading Parquet and Arrow files as rows.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchReader};
use arrow_schema::{DataType, Field, SchemaRef};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::batch::rows_together;
use super::declared::declare_alike;
use super::dictionaries::{each, has_dictionary, same};
use super::messages::check_messages;
use super::pages::{check_pages, is_deep};
use super::render::{is_null, kind_of, render};
use super::{is_supported, leaves};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::spec::{Reading, go_on};
use crate::table::{Kind, MAX_RECORD, Record, Source, StoredRows};
use crate::text::Columns;
use crate::workers::handed_on;

/// What the rows of a file may unfold to: so much, and so many times the file.
const UNFOLDED: u64 = 1 << 30;
const TIMES: u64 = 1000;

type Batches = (SchemaRef, Box<dyn RecordBatchReader + Send>);

/// The schema of a file, with its metadata, and its record batches.
pub(crate) fn batches(path: &Path, format: Format) -> Result<Batches> {
    let open = || File::open(path).map_err(Error::io(path));
    if format == Format::Parquet {
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(open()?).map_err(Error::columnar(path))?;
        // The reader's own schema lacks the metadata.
        let schema = builder.schema().clone();
        let pages = check_pages(&Source::unread(path)?, builder.metadata())?;
        let rows = rows_together(path, builder.metadata(), &pages)?;
        let reader = builder
            .with_batch_size(rows)
            .build()
            .map_err(Error::columnar(path))?;
        return Ok((schema, Box::new(reader)));
    }
    check_messages(&Source::unread(path)?)?;
    match arrow_ipc::reader::FileReader::try_new(open()?, None) {
        Ok(reader) => Ok((reader.schema(), Box::new(reader))),
        Err(_) => {
            let reader = arrow_ipc::reader::StreamReader::try_new(open()?, None)
                .map_err(Error::columnar(path))?;
            Ok((reader.schema(), Box::new(reader)))
        }
    }
}

/// Rows with the column names and the schema.
type ReadRows = (StoredRows, Columns, SchemaRef);

/// Reads all rows, in memory up to `most` bytes; nothing of a file with columns
/// of types that rows cannot be made of.
pub(crate) fn read_rows(path: &Path, most: u64, reading: Reading<'_>) -> Result<Option<ReadRows>> {
    let format = Format::of(path)?;
    if format == Format::Parquet && is_deep(&Source::unread(path)?)? {
        return Ok(None);
    }
    let (schema, reader) = batches(path, format)?;
    // Batches of other formats may be as large as memory bears one of.
    let threads = match format {
        Format::Parquet => reading.threads,
        _ => 1,
    };
    if !is_supported(&schema) {
        return Ok(None);
    }
    let mut columns = Columns::default();
    for name in leaves(&schema) {
        if columns.find(&name).is_some() {
            return Err(Error::DuplicateColumn {
                path: path.to_owned(),
                line: None,
                column: name,
            });
        }
        columns.intern(&name);
    }
    let mut rows = StoredRows::within(most);
    let mut record = Record::default();
    let file = Source::unread(path)?.len;
    let (mut unfolded, limit) = (0u64, UNFOLDED.saturating_add(file.saturating_mul(TIMES)));
    let decode = |put: &mut dyn FnMut(RecordBatch) -> Result<()>| {
        reader.into_iter().try_for_each(|batch| {
            go_on(reading.progress)?;
            put(batch.map_err(Error::columnar(path))?)
        })
    };
    let keep = |batch: RecordBatch| {
        for row in 0..batch.num_rows() {
            record.clear();
            let mut column = 0;
            for (array, field) in batch.columns().iter().zip(schema.fields()) {
                push_cells(
                    array.as_ref(),
                    field,
                    row,
                    true,
                    &mut column,
                    &mut record,
                    path,
                )?;
            }
            // A row without values takes its place as well.
            unfolded += (8 + record.cells().len() + record.len()) as u64;
            if unfolded > limit {
                return Err(too_large(path, "what the rows unfold to", unfolded, limit));
            }
            rows.push(&record, path)?;
        }
        Ok(())
    };
    handed_on(threads, decode, keep)?;
    Ok(Some((rows, columns, schema)))
}

fn too_large(path: &Path, what: &str, found: u64, limit: u64) -> Error {
    Error::TooLarge {
        path: path.to_owned(),
        what: what.to_owned(),
        found,
        limit,
    }
}

fn push_cells(
    array: &dyn Array,
    field: &Field,
    row: usize,
    present: bool,
    column: &mut u32,
    record: &mut Record,
    path: &Path,
) -> Result<()> {
    let there = present && !is_null(array, row);
    if let DataType::Struct(fields) = field.data_type() {
        if field.is_nullable() {
            record.push(
                *column,
                if there { Kind::Raw } else { Kind::Null },
                if there { b"1" } else { b"" },
            );
            *column += 1;
        }
        for (child, field) in array.as_struct().columns().iter().zip(fields) {
            push_cells(child.as_ref(), field, row, there, column, record, path)?;
        }
        return Ok(());
    }
    if !there {
        record.push(*column, Kind::Null, b"");
    } else {
        let mut supported = true;
        record.push_with(*column, kind_of(array.data_type()), |out| {
            supported = render(array, row, out)
        });
        if !supported {
            return Err(Error::Columnar {
                path: path.to_owned(),
                message: format!("columns of type {} are not supported", array.data_type()),
            });
        }
        // Before the next cell, which may be as long.
        let limit = MAX_RECORD as u64;
        if record.len() as u64 > limit {
            return Err(too_large(path, "a row", record.len() as u64, limit));
        }
    }
    *column += 1;
    Ok(())
}

/// Whether a file is rebuilt with its own dictionaries: Arrow files that have
/// any are.
pub(crate) fn keeps_dictionaries(path: &Path) -> Result<bool> {
    let format = Format::of(path)?;
    if format != Format::Arrow {
        return Ok(false);
    }
    let (schema, _) = batches(path, format)?;
    let fields = schema.fields();
    Ok(fields.iter().any(|f| has_dictionary(f.data_type())))
}

/// Whether the dictionaries of equal batches are the same, with their order.
/// Parquet has a dictionary for each column chunk, whose order the writer
/// chooses: there it counts only where the schema says that it means something.
fn same_dictionaries(
    left: &RecordBatch,
    right: &RecordBatch,
    schema: &SchemaRef,
    format: Format,
) -> bool {
    let columns = left.columns().iter().zip(right.columns());
    columns.zip(schema.fields()).all(|((one, other), field)| {
        if format == Format::Parquet && field.dict_is_ordered() != Some(true) {
            return true;
        }
        let list = |array| {
            let mut out: Vec<(ArrayRef, ArrayRef)> = Vec::new();
            each(array, &mut |dictionary| {
                let keys = arrow_array::make_array(dictionary.keys().to_data());
                out.push((keys, dictionary.values().clone()));
            });
            out
        };
        let (one, other) = (list(one), list(other));
        let mut pairs = one.iter().zip(&other);
        one.len() == other.len()
            && pairs.all(|(a, b)| same(&a.1, &b.1) && (same(&a.0, &b.0) || is_distinct(&a.1)))
    })
}

/// Whether values lead back to their places: each is there once, and none is null.
fn is_distinct(values: &ArrayRef) -> bool {
    let mut seen = HashSet::new();
    (0..values.len()).all(|row| {
        let mut value = Vec::new();
        !is_null(values, row) && render(values, row, &mut value) && seen.insert(value)
    })
}

/// Whether two files hold equal batches under equal schemas, for any reader:
/// what ours does not see must not differ either.
pub(crate) fn equal_files(first: &Path, second: &Path, format: Format) -> Result<bool> {
    let same_beside = match format {
        Format::Parquet => declare_alike(first, second)?,
        _ => !check_messages(&Source::unread(first)?)?,
    };
    if !same_beside {
        return Ok(false);
    }
    let (first_schema, mut a) = batches(first, format)?;
    let (second_schema, mut b) = batches(second, format)?;
    if first_schema != second_schema {
        return Ok(false);
    }
    let mut rest: (Option<RecordBatch>, Option<RecordBatch>) = (None, None);
    loop {
        if rest.0.is_none() {
            rest.0 = a.next().transpose().map_err(Error::columnar(first))?;
        }
        if rest.1.is_none() {
            rest.1 = b.next().transpose().map_err(Error::columnar(second))?;
        }
        let (Some(left), Some(right)) = &rest else {
            return Ok(rest.0.is_none() && rest.1.is_none());
        };
        let rows = left.num_rows().min(right.num_rows());
        let (left, right) = (left.slice(0, rows), right.slice(0, rows));
        if left != right || !same_dictionaries(&left, &right, &first_schema, format) {
            return Ok(false);
        }
        let cut = |batch: Option<RecordBatch>| {
            batch
                .filter(|batch| batch.num_rows() > rows)
                .map(|batch| batch.slice(rows, batch.num_rows() - rows))
        };
        rest = (cut(rest.0.take()), cut(rest.1.take()));
    }
}
