//! Parquet files of other writers come back byte for byte.
//!
//! `data/parquet/` holds the rows of `gsm8k_40.jsonl`, four times in another order each time, with columns of
//! other types beside them, as pyarrow 17.0.0 and 26.0.1, polars 2.1.0, DuckDB 2.0.1 and fastparquet
//! 2026.9.0 wrote them.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder, MapBuilder, StringBuilder};
use arrow_array::*;
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field};
use common::Folder;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use sparse_dataset::{CompressSpec, Effort, Error};

fn data(name: &str) -> PathBuf {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    data.join(name)
}

#[test]
fn files_of_other_writers_come_back() {
    let base = data("gsm8k_40.jsonl");
    let mut seen = 0;
    for file in fs::read_dir(data("parquet")).unwrap() {
        let file = file.unwrap().path();
        let folder = Folder::new();
        let spec = CompressSpec::default();
        let report = common::compress(&base, &file, &folder.0, &spec).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(report.byte_exact, "{name}");
        let again = folder.0.join(name);
        sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &()).unwrap();
        assert!(
            fs::read(&again).unwrap() == fs::read(&file).unwrap(),
            "{name}"
        );
        assert!(report.delta_bytes < 4_500, "{name}: {}", report.delta_bytes);
        seen += 1;
    }
    assert_eq!(seen, 8);
}

/// Lists of structs that hold a map, some of each null or empty.
fn deep(rows: i64) -> ArrayRef {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    let mut lengths = Vec::new();
    for row in 0..rows {
        lengths.push((row % 4) as usize);
        for part in 0..row % 4 {
            for key in 0..(row + part) % 3 {
                maps.keys().append_value(format!("k{key}"));
                maps.values().append_value(row * part + key);
            }
            maps.append((row + part) % 5 != 2).unwrap();
        }
    }
    let maps = maps.finish();
    let there = (0..maps.len())
        .map(|item| item % 6 != 4)
        .collect::<Vec<_>>();
    let field = Field::new("map", maps.data_type().clone(), true);
    let parts = StructArray::new(vec![field].into(), vec![Arc::new(maps)], Some(there.into()));
    let field = Arc::new(Field::new_list_field(parts.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths(lengths);
    Arc::new(LargeListArray::new(
        field,
        OffsetBuffer::new(offsets.iter().map(|&end: &i32| i64::from(end)).collect()),
        Arc::new(parts),
        None,
    ))
}

fn pairs(rows: i64) -> ArrayRef {
    let items = Int32Array::from_iter((0..2 * rows).map(|n| (n % 9 != 5).then_some(n as i32 / 3)));
    let field = Arc::new(Field::new_list_field(DataType::Int32, true));
    let there = (0..rows).map(|row| row % 8 != 6).collect::<Vec<_>>();
    Arc::new(FixedSizeListArray::new(
        field,
        2,
        Arc::new(items),
        Some(there.into()),
    ))
}

/// A table that takes a dictionary beyond its limit, with lists that go over pages.
fn table(rows: i64) -> RecordBatch {
    let numbers = || (0..rows).map(|row| row.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 20);
    let text = numbers().map(|n| format!("a text of {n}, and {}", n.wrapping_mul(n)));
    let mut lists = ListBuilder::new(Int64Builder::new());
    for (row, number) in numbers().enumerate() {
        for part in 0..row % 5 {
            lists
                .values()
                .append_option((part != 2).then_some(number >> part));
        }
        lists.append(row % 7 != 3);
    }
    let part = StructArray::from(vec![
        (
            Arc::new(Field::new("kind", DataType::Utf8, false)),
            Arc::new(StringArray::from_iter_values(numbers().map(|n| {
                ["one", "two", "three"][(n.unsigned_abs() % 3) as usize]
            }))) as ArrayRef,
        ),
        (
            Arc::new(Field::new("flag", DataType::Boolean, true)),
            Arc::new(BooleanArray::from_iter(
                numbers().map(|n| (n % 5 != 0).then_some(n % 2 == 0)),
            )),
        ),
    ]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("text", Arc::new(StringArray::from_iter_values(text))),
        ("number", Arc::new(Int64Array::from_iter_values(numbers()))),
        ("lists", Arc::new(lists.finish())),
        ("part", Arc::new(part)),
        ("deep", deep(rows)),
        ("pairs", pairs(rows)),
        (
            "same",
            Arc::new(Float32Array::from_iter_values(numbers().map(|_| 0.5))),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn written(batch: &RecordBatch, properties: WriterPropertiesBuilder) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut out, batch.schema(), Some(properties.build())).unwrap();
    for start in (0..batch.num_rows()).step_by(700) {
        writer
            .write(&batch.slice(start, 700.min(batch.num_rows() - start)))
            .unwrap();
    }
    writer.close().unwrap();
    out
}

#[test]
fn pages_end_where_the_writer_ended_them() {
    let (rows, base) = (table(6_000), table(5_000));
    let start = || WriterProperties::builder().set_created_by("somebody else".to_owned());
    let base = written(&base, start());
    for (number, properties) in [
        start().set_compression(Compression::SNAPPY),
        start().set_compression(Compression::ZSTD(ZstdLevel::try_new(5).unwrap())),
        start()
            .set_compression(Compression::LZ4_RAW)
            .set_data_page_row_count_limit(900),
        start()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_data_page_size_limit(3_000),
        start()
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_compression(Compression::SNAPPY)
            .set_dictionary_enabled(false),
        start()
            .set_max_row_group_row_count(Some(1_300))
            .set_write_batch_size(64),
        start()
            .set_dictionary_enabled(false)
            .set_column_encoding("number".into(), Encoding::DELTA_BINARY_PACKED),
    ]
    .into_iter()
    .enumerate()
    {
        let file = written(&rows, properties.set_offset_index_disabled(true));
        let report = common::round_trip(
            ("base.parquet", &base),
            ("derivative.parquet", &file),
            &CompressSpec {
                effort: Effort::Fast,
                ..CompressSpec::default()
            },
        );
        assert!(report.byte_exact, "{number}");
        let share = report.delta_bytes * 100 / file.len() as u64;
        assert!(share < 40, "{number}: {share} %");
    }
}

#[test]
fn a_frame_that_was_changed_is_no_frame() {
    let base = data("gsm8k_40.jsonl");
    let file = data("parquet/duckdb_2_snappy.parquet");
    let folder = Folder::new();
    common::compress(&base, &file, &folder.0, &CompressSpec::default()).unwrap();
    let artifact = folder.0.join("dataset.delta");
    let bytes = fs::read(&artifact).unwrap();
    for at in (11..bytes.len() - 8).step_by(19) {
        let mut other = bytes.clone();
        other[at] ^= 0x41;
        // The checksum is made right: what is behind it has to notice.
        let end = other.len() - 8;
        let digest = <sha2::Sha256 as sha2::Digest>::digest(&other[..end]);
        other[end..].copy_from_slice(&digest[..8]);
        fs::write(&artifact, &other).unwrap();
        let again = folder.0.join("again.parquet");
        let error = sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &());
        match error {
            Err(Error::Io { .. }) => panic!("byte {at}: {error:?}"),
            Err(_) => assert!(!again.exists(), "byte {at}"),
            // A count for reports, or a name.
            Ok(_) => {
                assert!(
                    fs::read(&again).unwrap() == fs::read(&file).unwrap(),
                    "byte {at}"
                );
                fs::remove_file(&again).unwrap();
            }
        }
    }
}

#[test]
fn a_shuffle_costs_its_permutation() {
    let count = 8_000usize;
    let (order, ideal) = common::shuffled(count);
    let file = |rows: &[usize]| {
        let text = |row: &usize| format!("what row {row} says, {}", row * row % 7_919);
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(text)));
        let numbers = rows.iter().map(|&row| row as i64);
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        let batch = RecordBatch::try_from_iter([("text", names), ("number", numbers)]).unwrap();
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
        written(&batch, properties)
    };
    let base = file(&(0..count).collect::<Vec<_>>());
    let report = common::round_trip(
        ("base.parquet", &base),
        ("derivative.parquet", &file(&order)),
        &CompressSpec::default(),
    );
    assert!(report.byte_exact);
    let share = report.delta_bytes as f64 / ideal;
    assert!(share < 1.05, "{share}");
}

#[test]
fn columns_in_very_many_groups_are_bytes() {
    let file = |groups: usize| {
        let mut column: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        for _ in 0..groups {
            let field = Arc::new(Field::new("a", column.data_type().clone(), false));
            column = Arc::new(StructArray::from(vec![(field, column)]));
        }
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let mut out = Vec::new();
        // As the schema of Arrow beside the columns has a limit as well.
        let options = ArrowWriterOptions::new().with_skip_arrow_metadata(true);
        let mut writer =
            ArrowWriter::try_new_with_options(&mut out, batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        out
    };
    for (groups, columns) in [(40, 1), (80, 0)] {
        let bytes = file(groups);
        let spec = CompressSpec::default();
        let report = common::round_trip(("b.parquet", &bytes), ("d.parquet", &bytes), &spec);
        assert!(report.byte_exact);
        assert_eq!(report.splits[0].rows, columns * 3);
    }
}
