//! Parquet and Arrow: every type, nested and null, equal after a round trip.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder};
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::*;
use arrow_buffer::{NullBuffer, i256};
use arrow_schema::{DataType, Field, Fields, Schema};
use common::Folder;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use sparse_dataset::CompressSpec;

/// A batch with a column of every kind.
fn every_type() -> RecordBatch {
    let mut lists = ListBuilder::new(StringBuilder::new());
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for row in 0..6 {
        if row == 2 {
            lists.append_null();
            maps.append(false).unwrap();
            continue;
        }
        for item in 0..row {
            lists
                .values()
                .append_option((item != 1).then(|| format!("item \"{item}\" é\n")));
            maps.keys().append_value(format!("k{item}"));
            maps.values().append_value(item);
        }
        lists.append(true);
        maps.append(true).unwrap();
    }
    let inner = Fields::from(vec![
        Field::new("x", DataType::Int32, true),
        Field::new("y", DataType::Utf8, true),
    ]);
    let structs = StructArray::new(
        inner,
        vec![
            Arc::new(Int32Array::from(vec![
                Some(1),
                None,
                Some(3),
                Some(4),
                None,
                Some(6),
            ])),
            Arc::new(StringArray::from(vec![
                Some("a"),
                Some(""),
                None,
                Some("d"),
                None,
                Some("f"),
            ])),
        ],
        Some(NullBuffer::from(vec![true, true, true, false, false, true])),
    );
    let dictionary: DictionaryArray<Int8Type> =
        vec![Some("u"), Some("v"), None, Some("u"), Some("w"), Some("v")]
            .into_iter()
            .collect();
    let bits = [
        f64::NAN.to_bits(),
        0x7ff8_0000_0000_0001,
        (-0.0f64).to_bits(),
        1.5f64.to_bits(),
        f64::INFINITY.to_bits(),
        5e-324f64.to_bits(),
    ];
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "text",
            Arc::new(StringArray::from(vec![
                "one",
                "two \"q\"",
                "",
                "four\n",
                "five é",
                "six",
            ])),
        ),
        (
            "number",
            Arc::new(Int64Array::from(vec![
                Some(i64::MIN),
                None,
                Some(0),
                Some(7),
                Some(-1),
                Some(i64::MAX),
            ])),
        ),
        (
            "float",
            Arc::new(Float64Array::from(bits.map(f64::from_bits).to_vec())),
        ),
        (
            "single",
            Arc::new(Float32Array::from(vec![
                0.1,
                -0.0,
                f32::NAN,
                3e38,
                1e-45,
                2.0,
            ])),
        ),
        (
            "flag",
            Arc::new(BooleanArray::from(vec![
                Some(true),
                None,
                Some(false),
                Some(true),
                None,
                Some(false),
            ])),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from_vec(vec![
                b"\0\xff", b"", b"x", b"\"", b"\n", b"yy",
            ])),
        ),
        (
            "fixed",
            Arc::new(
                FixedSizeBinaryArray::try_from_iter(
                    [[0u8, 1], [2, 3], [255, 0], [9, 9], [1, 1], [0, 0]].iter(),
                )
                .unwrap(),
            ),
        ),
        (
            "time",
            Arc::new(
                TimestampMicrosecondArray::from(vec![0, 1, -1, i64::MAX, 5, 6])
                    .with_timezone("UTC"),
            ),
        ),
        (
            "day",
            Arc::new(Date32Array::from(vec![0, 1, -1, 20_000, 5, 6])),
        ),
        (
            "decimal",
            Arc::new(
                Decimal128Array::from(vec![1, -99, 0, 12_345, 5, 6])
                    .with_precision_and_scale(20, 3)
                    .unwrap(),
            ),
        ),
        (
            "big",
            Arc::new(
                Decimal256Array::from(vec![
                    i256::from(1),
                    i256::from(-7),
                    i256::ZERO,
                    i256::from(3),
                    i256::ONE,
                    i256::MINUS_ONE,
                ])
                .with_precision_and_scale(60, 2)
                .unwrap(),
            ),
        ),
        ("dictionary", Arc::new(dictionary)),
        (
            "large",
            Arc::new(LargeStringArray::from(vec![
                Some("l"),
                None,
                Some(""),
                Some("m"),
                Some("n"),
                Some("o"),
            ])),
        ),
        (
            "view",
            Arc::new(StringViewArray::from(vec![
                Some("a long enough string to be apart"),
                None,
                Some(""),
                Some("m"),
                Some("n"),
                Some("o"),
            ])),
        ),
        ("list", Arc::new(lists.finish())),
        ("map", Arc::new(maps.finish())),
        ("struct", Arc::new(structs)),
        (
            "pair",
            Arc::new(FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
                (0..6).map(|n| (n != 3).then(|| vec![Some(n), None])),
                2,
            )),
        ),
        ("null", Arc::new(NullArray::new(6))),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| {
            Field::new(*name, array.data_type().clone(), true)
                .with_metadata(HashMap::from([("unit".to_owned(), (*name).to_owned())]))
        })
        .collect();
    let schema = Schema::new_with_metadata(
        fields,
        HashMap::from([("licence".to_owned(), "MIT".to_owned())]),
    );
    RecordBatch::try_new(
        Arc::new(schema),
        columns.into_iter().map(|(_, array)| array).collect(),
    )
    .unwrap()
}

fn write_parquet(path: &Path, batch: &RecordBatch, codec: Compression, group: usize) {
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_max_row_group_row_count(Some(group))
        .build();
    let mut writer = ArrowWriter::try_new(
        File::create(path).unwrap(),
        batch.schema(),
        Some(properties),
    )
    .unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn write_arrow(path: &Path, batch: &RecordBatch) {
    let mut writer =
        arrow_ipc::writer::FileWriter::try_new(File::create(path).unwrap(), &batch.schema())
            .unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
}

fn read_parquet(path: &Path) -> Vec<RecordBatch> {
    ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap())
        .unwrap()
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn exact(folder: &Folder, base: &Path, derivative: &Path) -> bool {
    let report =
        sparse_dataset::compress(base, derivative, &folder.0, &CompressSpec::default(), &())
            .unwrap_or_else(|e| panic!("{e}"));
    let again = folder.0.join(format!(
        "again.{}",
        derivative.extension().unwrap().to_string_lossy()
    ));
    sparse_dataset::reconstruct(base, &folder.0, &again, 2, &()).unwrap();
    if report.byte_exact {
        assert_eq!(
            std::fs::read(&again).unwrap(),
            std::fs::read(derivative).unwrap()
        );
    } else if derivative.extension().unwrap() == "parquet" {
        assert_eq!(read_parquet(&again), read_parquet(derivative));
    }
    report.byte_exact
}

#[test]
fn every_type_in_other_row_groups_and_codecs_comes_back() {
    let batch = every_type();
    let folder = Folder::new();
    let (base, derivative, ipc) = (
        folder.0.join("b.parquet"),
        folder.0.join("d.parquet"),
        folder.0.join("d.arrow"),
    );
    write_parquet(&base, &batch.slice(0, 5), Compression::SNAPPY, 100);
    for (codec, group) in [
        (Compression::UNCOMPRESSED, 2),
        (Compression::SNAPPY, 4),
        (Compression::ZSTD(Default::default()), 100),
    ] {
        write_parquet(&derivative, &batch, codec, group);
        assert!(exact(&folder, &base, &derivative), "{codec:?}");
        assert!(exact(&folder, &derivative, &base), "{codec:?}");
    }
    write_arrow(&ipc, &batch);
    assert!(exact(&folder, &base, &ipc));
    assert!(exact(&folder, &ipc, &base));
}

#[test]
fn a_dotted_name_may_stand_beside_a_struct() {
    let numbers = || Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef;
    let inner = StructArray::from(vec![(
        Arc::new(Field::new("b", DataType::Int32, true)),
        numbers(),
    )]);
    let inner: ArrayRef = Arc::new(inner);
    let batch = RecordBatch::try_from_iter([("a.b", numbers()), ("a", inner)]).unwrap();
    let folder = Folder::new();
    let path = folder.0.join("d.parquet");
    write_parquet(&path, &batch, Compression::UNCOMPRESSED, 10);
    exact(&folder, &path, &path);
}

#[test]
fn types_without_cells_stay_bytes() {
    let ends = Int32Array::from(vec![2, 3]);
    let values = StringArray::from(vec!["a", "b"]);
    let runs: ArrayRef = Arc::new(RunArray::try_new(&ends, &values).unwrap());
    let batch = RecordBatch::try_from_iter([("r", runs)]).unwrap();
    let folder = Folder::new();
    let path = folder.0.join("d.arrow");
    write_arrow(&path, &batch);
    assert!(exact(&folder, &path, &path));
}

#[test]
fn empty_files_come_back() {
    let batch = every_type();
    let folder = Folder::new();
    let (base, derivative) = (folder.0.join("b.parquet"), folder.0.join("d.parquet"));
    write_parquet(&base, &batch, Compression::SNAPPY, 100);
    write_parquet(&derivative, &batch.slice(0, 0), Compression::SNAPPY, 100);
    assert!(exact(&folder, &base, &derivative));
    assert!(exact(&folder, &derivative, &base));
}

#[test]
fn text_is_found_in_columnar_bases() {
    let folder = Folder::new();
    let batch = every_type();
    let base = folder.0.join("b.parquet");
    write_parquet(&base, &batch, Compression::SNAPPY, 100);
    let derivative = folder.write("d.jsonl", b"{\"text\": \"six\", \"struct\": {\"y\": \"f\"}}\n{\"text\": \"five \xc3\xa9\", \"struct\": {\"y\": null}}\n");
    let report =
        sparse_dataset::compress(&base, &derivative, &folder.0, &CompressSpec::default(), &())
            .unwrap();
    assert_eq!(report.splits[0].rows_referenced, 2);
    let again = folder.0.join("again.jsonl");
    sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &()).unwrap();
    assert_eq!(
        std::fs::read(again).unwrap(),
        std::fs::read(derivative).unwrap()
    );
}

#[test]
fn folders_of_splits_come_back() {
    let folder = Folder::new();
    let batch = every_type();
    std::fs::create_dir_all(folder.0.join("base")).unwrap();
    std::fs::create_dir_all(folder.0.join("derivative")).unwrap();
    write_parquet(
        &folder.0.join("base/train-00000-of-00002.parquet"),
        &batch.slice(0, 3),
        Compression::SNAPPY,
        100,
    );
    write_parquet(
        &folder.0.join("base/train-00001-of-00002.parquet"),
        &batch.slice(3, 3),
        Compression::SNAPPY,
        100,
    );
    write_parquet(
        &folder.0.join("derivative/train.parquet"),
        &batch,
        Compression::SNAPPY,
        100,
    );
    folder.write("derivative/test.jsonl", b"{\"text\": \"six\"}\n");
    let delta = folder.0.join("delta");
    std::fs::create_dir_all(&delta).unwrap();
    let report = sparse_dataset::compress(
        &folder.0.join("base"),
        &folder.0.join("derivative"),
        &delta,
        &CompressSpec::default(),
        &(),
    )
    .unwrap();
    assert_eq!(
        report
            .splits
            .iter()
            .map(|split| split.rows_referenced)
            .collect::<Vec<_>>(),
        [1, 6]
    );
    let again = folder.0.join("again");
    sparse_dataset::reconstruct(&folder.0.join("base"), &delta, &again, 2, &()).unwrap();
    for name in ["train.parquet", "test.jsonl"] {
        assert_eq!(
            std::fs::read(again.join(name)).unwrap(),
            std::fs::read(folder.0.join("derivative").join(name)).unwrap()
        );
    }
}

#[test]
fn a_flipped_or_cut_columnar_file_is_an_error_or_another_table() {
    let folder = Folder::new();
    let batch = every_type().project(&[0, 1, 5, 11, 14, 16]).unwrap();
    for name in ["d.parquet", "d.arrow"] {
        let path = folder.0.join(name);
        if name == "d.parquet" {
            write_parquet(&path, &batch, Compression::SNAPPY, 4);
        } else {
            write_arrow(&path, &batch);
        }
        let bytes = std::fs::read(&path).unwrap();
        let base = folder.write("base.jsonl", b"{\"text\": \"one\"}\n");
        for at in (0..bytes.len()).step_by(211) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x41;
            for damaged in [&flipped[..], &bytes[..at]] {
                let derivative = folder.write(name, damaged);
                let started = std::time::Instant::now();
                let _ = sparse_dataset::compress(
                    &base,
                    &derivative,
                    &folder.0,
                    &CompressSpec::default(),
                    &(),
                );
                assert!(
                    started.elapsed().as_secs() < 20,
                    "{name}: byte {at} makes a bomb"
                );
            }
        }
    }
}
