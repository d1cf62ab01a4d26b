//! Dictionaries of Arrow files are kept: their values, their order, and what a
//! stream replaces; those of Parquet files where their order has a meaning.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::*;
use arrow_buffer::OffsetBuffer;
use arrow_ipc::reader::{FileReader, StreamReader};
use arrow_ipc::writer::{DictionaryHandling, FileWriter, IpcWriteOptions, StreamWriter};
use arrow_schema::{DataType, Field, Fields, Schema};
use common::Folder;
use sparse_dataset::{CompressReport, CompressSpec};

/// Categories, the last of which no row has.
fn kinds(keys: &[Option<i8>]) -> DictionaryArray<Int8Type> {
    let values = StringArray::from(vec![Some("z"), Some("a"), Some("m"), Some("unused")]);
    DictionaryArray::new(Int8Array::from(keys.to_vec()), Arc::new(values))
}

/// A column of categories, one in a list and one in a struct.
fn batches() -> Vec<RecordBatch> {
    let tags = |count: usize| {
        let words = Arc::new(StringArray::from(vec!["nowhere", "two", "one"]));
        let keys = Int32Array::from((0..count * 2).map(|n| 1 + n as i32 % 2).collect::<Vec<_>>());
        let items: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::new(keys, words));
        let field = Arc::new(Field::new("item", items.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(2, count));
        ListArray::new(field, offsets, items, None)
    };
    let mut out = Vec::new();
    for keys in [
        &[Some(2), None, Some(0)][..],
        &[Some(1), Some(1)],
        &[None, Some(2), Some(2), Some(0)],
    ] {
        let count = keys.len();
        let kind: ArrayRef = Arc::new(kinds(keys));
        let id: ArrayRef = Arc::new(Int32Array::from_iter_values(0..count as i32));
        let tags: ArrayRef = Arc::new(tags(count));
        let inner = Fields::from(vec![Field::new("kind", kind.data_type().clone(), true)]);
        let both: ArrayRef = Arc::new(StructArray::new(inner, vec![kind.clone()], None));
        let columns = [("id", id), ("kind", kind), ("tags", tags), ("both", both)];
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
            .collect();
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        out.push(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap());
    }
    out
}

fn write_stream(path: &Path, batches: &[RecordBatch], handling: DictionaryHandling) {
    let options = IpcWriteOptions::default().with_dictionary_handling(handling);
    let schema = batches[0].schema();
    let file = File::create(path).unwrap();
    let mut writer = StreamWriter::try_new_with_options(file, &schema, options).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
}

fn read(path: &Path) -> Vec<RecordBatch> {
    match FileReader::try_new(File::open(path).unwrap(), None) {
        Ok(reader) => reader.map(Result::unwrap).collect(),
        Err(_) => StreamReader::try_new(File::open(path).unwrap(), None)
            .unwrap()
            .map(Result::unwrap)
            .collect(),
    }
}

/// The values and keys of the columns "kind".
fn dictionaries(path: &Path) -> Vec<(ArrayRef, Int8Array)> {
    let kinds = read(path).into_iter().map(|batch| {
        let kind = batch.column_by_name("kind").unwrap().clone();
        let kind = kind.as_dictionary::<Int8Type>();
        (kind.values().clone(), kind.keys().clone())
    });
    kinds.collect()
}

fn round_trip(folder: &Folder, path: &Path) -> (CompressReport, PathBuf) {
    let base = folder.write("base.jsonl", b"{\"id\": 1, \"kind\": \"a\"}\n");
    let spec = CompressSpec::default();
    let report = sparse_dataset::compress(&base, path, &folder.0, &spec, &()).unwrap();
    let again = folder.0.join("again.arrow");
    sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &()).unwrap();
    (report, again)
}

#[test]
fn an_arrow_file_of_several_batches_keeps_its_dictionary() {
    let folder = Folder::new();
    let (path, batches) = (folder.0.join("d.arrow"), batches());
    let mut writer =
        FileWriter::try_new(File::create(&path).unwrap(), &batches[0].schema()).unwrap();
    for batch in &batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    let (report, again) = round_trip(&folder, &path);
    assert!(report.byte_exact);
    assert_eq!(read(&again), read(&path));
    assert_eq!(dictionaries(&again), dictionaries(&path));
}

#[test]
fn a_stream_keeps_what_it_replaces_and_adds() {
    let mut batches = batches();
    let first = batches[0].clone();
    let schema = first.schema();
    let project = |batch: &RecordBatch| batch.project(&[0, 1]).unwrap();
    batches = batches.iter().map(project).collect();
    let longer = StringArray::from(vec!["z", "a", "m", "unused", "later"]);
    let other = StringArray::from(vec!["later", "z"]);
    for (values, handling) in [
        (longer, DictionaryHandling::Delta),
        (other, DictionaryHandling::Resend),
    ] {
        let folder = Folder::new();
        let path = folder.0.join("d.arrow");
        let last = Int8Array::from(vec![Some(1), None, Some(0)]);
        let kind: ArrayRef = Arc::new(DictionaryArray::new(last, Arc::new(values)));
        let schema = Arc::new(schema.project(&[0, 1]).unwrap());
        let more = RecordBatch::try_new(schema, vec![first.column(0).clone(), kind]).unwrap();
        let all = [batches.clone(), vec![more, batches[1].clone()]].concat();
        let all = &all[..if handling == DictionaryHandling::Delta {
            4
        } else {
            5
        }];
        write_stream(&path, all, handling);
        let (_, again) = round_trip(&folder, &path);
        assert_eq!(read(&again), read(&path));
        assert_eq!(dictionaries(&again), dictionaries(&path));
    }
}

#[test]
fn keys_that_values_do_not_give_are_kept_through_the_bytes() {
    // The same value twice, and a null among the values.
    let values = StringArray::from(vec![Some("a"), Some("a"), None]);
    let keys = Int8Array::from(vec![1, 0, 2, 1]);
    let kind: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(values)));
    let schema = Schema::new(vec![Field::new("kind", kind.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![kind]).unwrap();
    let folder = Folder::new();
    let path = folder.0.join("d.arrow");
    write_stream(&path, &[batch], DictionaryHandling::Resend);
    let (report, again) = round_trip(&folder, &path);
    assert!(report.byte_exact);
    assert_eq!(std::fs::read(again).unwrap(), std::fs::read(path).unwrap());
}

#[test]
fn one_large_batch_of_categories_is_read_in_time() {
    // Each row once looked at the keys of all: an hour for this.
    let keys: Vec<Option<i8>> = (0..300_000u32).map(|n| Some((n % 3) as i8)).collect();
    let kind: ArrayRef = Arc::new(kinds(&keys));
    let key = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let schema = Schema::new(vec![Field::new("kind", key, true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![kind]).unwrap();
    let folder = Folder::new();
    let path = folder.0.join("d.arrow");
    write_stream(&path, &[batch], DictionaryHandling::Resend);
    let (report, again) = round_trip(&folder, &path);
    assert!(
        report.byte_exact && report.delta_bytes < 2_000,
        "{}",
        report.delta_bytes
    );
    assert_eq!(dictionaries(&again), dictionaries(&path));
}
