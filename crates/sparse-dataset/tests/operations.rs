//! Generated tables through every operation, in every pair of text formats.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use common::{Folder, round_trip};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use sparse_dataset::{CompressSpec, Effort, SplitReport};

/// A value of a cell.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Number(i64),
    Float(f64),
    Bool(bool),
    Null,
    List(Vec<String>),
}

type Row = Vec<Value>;

/// What is done to a table.
#[derive(Clone, Debug)]
enum Operation {
    Keep,
    Shuffle(u64),
    Filter(u8),
    Duplicate,
    Edit(usize, String),
    Insert(usize, Row),
    Drop(usize),
    Rename(usize),
    Reorder,
    Constant(String),
    Upper(usize),
    Lower(usize),
    Extract(usize),
    Cast(usize),
    Concat(usize, usize),
    Map(usize),
    /// A mapping, but for every so many rows.
    MapBut(usize, usize),
    Number(i32),
}

#[derive(Clone, Debug)]
struct Table {
    names: Vec<String>,
    rows: Vec<Row>,
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => "[ -~é€😀\\n\\t\",]{0,24}".prop_map(Value::Text),
        2 => any::<i64>().prop_map(Value::Number),
        1 => any::<f64>().prop_filter("finite", |x| x.is_finite()).prop_map(Value::Float),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => Just(Value::Null),
        1 => prop::collection::vec("[a-z\"\\\\]{0,6}", 0..4).prop_map(Value::List),
    ]
}

fn table() -> impl Strategy<Value = Table> {
    (1usize..5).prop_flat_map(|columns| {
        prop::collection::vec(prop::collection::vec(value(), columns), 0..40).prop_map(
            move |rows| Table {
                names: (0..columns).map(|c| format!("c{c}")).collect(),
                rows,
            },
        )
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        Just(Operation::Keep),
        any::<u64>().prop_map(Operation::Shuffle),
        any::<u8>().prop_map(Operation::Filter),
        Just(Operation::Duplicate),
        (any::<usize>(), "[a-z ]{0,9}").prop_map(|(at, text)| Operation::Edit(at, text)),
        (any::<usize>(), prop::collection::vec(value(), 4))
            .prop_map(|(at, row)| Operation::Insert(at, row)),
        any::<usize>().prop_map(Operation::Drop),
        any::<usize>().prop_map(Operation::Rename),
        Just(Operation::Reorder),
        "[a-z]{0,9}".prop_map(Operation::Constant),
        any::<usize>().prop_map(Operation::Upper),
        any::<usize>().prop_map(Operation::Lower),
        any::<usize>().prop_map(Operation::Extract),
        any::<usize>().prop_map(Operation::Cast),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Operation::Concat(a, b)),
        any::<usize>().prop_map(Operation::Map),
        (any::<usize>(), 1usize..20).prop_map(|(at, each)| Operation::MapBut(at, each)),
        any::<i32>().prop_map(Operation::Number),
    ]
}

fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Bool(value) => value.to_string(),
        Value::Null => String::new(),
        Value::List(items) => items.join("|"),
    }
}

/// Names one more column, as no other is: columns may have been dropped in between.
fn name_added(table: &mut Table) {
    let names = (table.names.len()..).map(|number| format!("added{number}"));
    let fresh = names.into_iter().find(|name| !table.names.contains(name));
    table.names.extend(fresh);
}

fn add(table: &mut Table, cell: impl Fn(&Row) -> Value) {
    name_added(table);
    for row in &mut table.rows {
        let value = cell(row);
        row.push(value);
    }
}

fn apply(table: &mut Table, operation: &Operation) {
    let columns = table.names.len();
    match operation {
        Operation::Keep => {}
        Operation::Shuffle(seed) => {
            let mut state = *seed | 1;
            for index in (1..table.rows.len()).rev() {
                state = state
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                table.rows.swap(index, (state >> 33) as usize % (index + 1));
            }
        }
        Operation::Filter(mask) => {
            let mut at = 0;
            table.rows.retain(|_| {
                at += 1;
                mask >> (at % 8) & 1 == 1
            });
        }
        Operation::Duplicate => table.rows.extend(table.rows.clone()),
        Operation::Edit(at, word) => {
            let count = table.rows.len();
            if count > 0 {
                let cell = &mut table.rows[at % count][at % columns];
                *cell = Value::Text(text(cell) + word);
            }
        }
        Operation::Insert(at, row) => {
            let row = (0..columns).map(|c| row[c % row.len()].clone()).collect();
            table.rows.insert(at % (table.rows.len() + 1), row);
        }
        Operation::Drop(column) if columns > 1 => {
            table.names.remove(column % columns);
            table
                .rows
                .iter_mut()
                .for_each(|row| drop(row.remove(column % columns)));
        }
        Operation::Drop(_) => {}
        Operation::Rename(column) => table.names[column % columns] += "_renamed",
        Operation::Reorder => {
            table.names.reverse();
            table.rows.iter_mut().for_each(|row| row.reverse());
        }
        Operation::Constant(value) => add(table, |_| Value::Text(value.clone())),
        Operation::Upper(column) => add(table, |row| {
            Value::Text(text(&row[column % columns]).to_uppercase())
        }),
        Operation::Lower(column) => add(table, |row| {
            Value::Text(text(&row[column % columns]).to_lowercase())
        }),
        Operation::Extract(column) => add(table, |row| {
            let text = text(&row[column % columns]);
            Value::Text(text.rsplit(' ').next().unwrap_or_default().to_owned())
        }),
        Operation::Cast(column) => {
            for row in &mut table.rows {
                let cell = &mut row[column % columns];
                *cell = match &*cell {
                    Value::Number(number) => Value::Float(*number as f64),
                    other => Value::Text(text(other)),
                };
            }
        }
        Operation::Concat(a, b) => {
            add(table, |row| {
                Value::Text(format!(
                    "<{}> and {}",
                    text(&row[a % columns]),
                    text(&row[b % columns])
                ))
            });
        }
        Operation::Number(first) => {
            let mut numbers = i64::from(*first)..;
            let numbers: Vec<i64> = table.rows.iter().filter_map(|_| numbers.next()).collect();
            name_added(table);
            for (row, number) in table.rows.iter_mut().zip(numbers) {
                row.push(Value::Number(number));
            }
        }
        Operation::MapBut(column, each) => {
            apply(table, &Operation::Map(*column));
            for row in table.rows.iter_mut().step_by(*each) {
                row.pop();
                row.push(Value::Number(-1));
            }
        }
        Operation::Map(column) => add(table, |row| {
            Value::Number(text(&row[column % columns]).len() as i64 % 3)
        }),
    }
}

fn json(value: &Value) -> String {
    let string = |text: &str| serde_json::to_string(text).unwrap();
    match value {
        Value::Text(text) => string(text),
        Value::Null => "null".to_owned(),
        Value::List(items) => format!(
            "[{}]",
            items
                .iter()
                .map(|item| string(item))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        other => text(other),
    }
}

fn object(table: &Table, row: &Row) -> String {
    let members: Vec<String> = table
        .names
        .iter()
        .zip(row)
        .map(|(name, value)| format!("\"{name}\": {}", json(value)))
        .collect();
    format!("{{{}}}", members.join(", "))
}

fn written(table: &Table, format: usize) -> (&'static str, String) {
    let objects = || table.rows.iter().map(|row| object(table, row));
    match format {
        0 => ("t.jsonl", objects().map(|object| object + "\n").collect()),
        1 => (
            "t.json",
            format!("[{}]", objects().collect::<Vec<_>>().join(",\n ")),
        ),
        delimited => {
            let (name, delimiter) = if delimited == 2 {
                ("t.csv", ",")
            } else {
                ("t.tsv", "\t")
            };
            let mut out = table.names.join(delimiter) + "\r\n";
            for row in &table.rows {
                let cells: Vec<String> = row
                    .iter()
                    .map(text)
                    .map(|cell| match cell.contains([',', '\t', '"', '\n']) {
                        true => format!("\"{}\"", cell.replace('"', "\"\"")),
                        false => cell,
                    })
                    .collect();
                out += &(cells.join(delimiter) + "\r\n");
            }
            (name, out)
        }
    }
}

/// The table as Parquet, its values as text.
fn parquet(table: &Table) -> Vec<u8> {
    let column = |at: usize| {
        let cells = table.rows.iter().map(|row| match &row[at] {
            Value::Null => None,
            other => Some(text(other)),
        });
        Arc::new(cells.collect::<StringArray>()) as ArrayRef
    };
    let columns = (0..table.names.len()).map(|at| (table.names[at].clone(), column(at), true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    out
}

/// Four hundred rows: a sentence that no other row has, one of five labels, a number.
fn known() -> Table {
    let words = [
        "River", "stone", "Seven", "light", "of", "And", "walks", "to",
    ];
    let row = |n: usize| {
        let word = |k: usize| words[(n * 31 + k * k * 7 + n / 8 * k) % 8];
        let sentence = (0..14).map(word).collect::<Vec<_>>().join(" ");
        vec![
            Value::Text(format!("{sentence} {}", n * 7_919)),
            Value::Text(["Red", "Green", "Blue", "Black", "White"][n * 7 % 11 % 5].to_owned()),
            Value::Number(n as i64 * 13 % 997),
        ]
    };
    Table {
        names: ["sentence", "label", "number"].map(str::to_owned).to_vec(),
        rows: (0..400).map(row).collect(),
    }
}

/// What the delta of one operation says, and its bytes.
fn found(operation: Operation, format: usize) -> (SplitReport, u64) {
    let base = known();
    let mut derivative = base.clone();
    apply(&mut derivative, &operation);
    let (base_name, base_text) = written(&base, 0);
    let (name, text) = written(&derivative, format);
    let report = round_trip(
        (base_name, base_text.as_bytes()),
        (name, text.as_bytes()),
        &CompressSpec::default(),
    );
    (report.splits[0].clone(), report.delta_bytes)
}

#[test]
fn every_operation_is_found() {
    use Operation::*;
    for (operation, most) in [
        (Keep, 350),
        (Duplicate, 350),
        (Reorder, 350),
        (Drop(0), 350),
        (Rename(0), 350),
        (Constant("web".to_owned()), 350),
        (Number(7), 350),
        (Upper(0), 400),
        (Lower(1), 400),
        (Extract(0), 400),
        (Concat(0, 1), 400),
        (Cast(2), 800),
        (Map(1), 450),
        (MapBut(1, 19), 600),
        (Edit(5, "more".to_owned()), 400),
        (Filter(0b1011_0110), 500),
    ] {
        let said = format!("{operation:?}");
        let (split, bytes) = found(operation, 0);
        assert!(bytes <= most, "{said}: {bytes} bytes, at most {most}");
        assert_eq!(split.rows_new, 0, "{said}");
    }
}

#[test]
fn functions_of_columns_are_named() {
    for (operation, from) in [
        (Operation::Upper(0), "sentence"),
        (Operation::Lower(1), "label"),
        (Operation::Extract(0), "sentence"),
        (Operation::Map(1), "label"),
        (Operation::MapBut(1, 19), "label"),
    ] {
        let said = format!("{operation:?}");
        let (split, _) = found(operation, 0);
        let [(name, sources)] = split.columns_computed.as_slice() else {
            panic!("{said}: {:?}", split.columns_computed);
        };
        assert_eq!(
            (name.as_str(), sources.as_slice()),
            ("added3", [from.to_owned()].as_slice())
        );
        assert!(split.columns_added.is_empty(), "{said}");
    }
    let (split, _) = found(Operation::Cast(2), 0);
    assert_eq!(
        split.columns_cast,
        [("number".to_owned(), "integer", "float")]
    );
    assert_eq!(split.rows_edited, 0);
}

/// Parquet that another writer made: byte for byte through a patch, or equal in what it holds.
#[test]
fn parquet_is_patched_or_logically_equal() {
    let folder = Folder::new();
    let mut bytes = parquet(&known());
    let base = folder.write("base.parquet", &bytes);
    // Bytes between the pages and the metadata, which no writer of ours leaves.
    let size = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap());
    let metadata = bytes.len() - 8 - size as usize;
    bytes.splice(metadata..metadata, *b"left over");
    let derivative = folder.write("d.parquet", &bytes);
    for logical in [false, true] {
        let spec = CompressSpec {
            logical,
            ..CompressSpec::default()
        };
        let report = common::compress(&base, &derivative, &folder.0, &spec).unwrap();
        assert_eq!(report.byte_exact, !logical);
        assert!(report.delta_bytes < 2_000, "{}", report.delta_bytes);
        let again = folder.0.join("again.parquet");
        sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &()).unwrap();
        let again = std::fs::read(again).unwrap();
        assert_eq!(again == bytes, !logical);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_operation_on_columnar_shards_comes_back(
        base in table(), operations in prop::collection::vec(operation(), 0..4), shards in 1usize..4,
    ) {
        let mut derivative = base.clone();
        for operation in &operations {
            apply(&mut derivative, operation);
        }
        let folder = Folder::new();
        let base = folder.write("base.parquet", &parquet(&base));
        let rows = derivative.rows.len().div_ceil(shards).max(1);
        for (number, rows) in derivative.rows.chunks(rows).enumerate() {
            let shard = Table { names: derivative.names.clone(), rows: rows.to_vec() };
            folder.write(&format!("d/data/{number}.parquet"), &parquet(&shard));
        }
        folder.write("d/all.csv", written(&derivative, 2).1.as_bytes());
        let original = folder.0.join("d");
        let report = common::compress(&base, &original, &folder.0, &CompressSpec::default()).unwrap();
        let again = folder.0.join("again");
        std::fs::create_dir(&again).unwrap();
        sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &()).unwrap();
        for split in report.splits.iter().filter(|split| split.byte_exact) {
            let read = |folder: &std::path::Path| std::fs::read(folder.join(&split.name)).unwrap();
            prop_assert!(read(&again) == read(&original), "{}", split.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_operation_comes_back(
        base in table(), operations in prop::collection::vec(operation(), 0..4), formats in (0usize..4, 0usize..4), fast in any::<bool>(),
    ) {
        let mut derivative = base.clone();
        for operation in &operations {
            apply(&mut derivative, operation);
        }
        let (base_name, base_text) = written(&base, formats.0);
        let (name, text) = written(&derivative, formats.1);
        let spec = CompressSpec { effort: if fast { Effort::Fast } else { Effort::Small }, ..CompressSpec::default() };
        round_trip((base_name, base_text.as_bytes()), (name, text.as_bytes()), &spec);
    }

    #[test]
    fn any_bytes_come_back_or_are_refused(bytes in prop::collection::vec(prop_oneof![
        Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b','), Just(b':'), Just(b'\n'), Just(b'\\'), Just(b'1'), Just(b'a'), any::<u8>(),
    ], 0..40), format in 0usize..4) {
        let folder = Folder::new();
        let name = ["d.jsonl", "d.json", "d.csv", "d.tsv"][format];
        let base = folder.write("base.jsonl", common::gsm8k().as_bytes());
        let derivative = folder.write(name, &bytes);
        if common::compress(&base, &derivative, &folder.0, &CompressSpec::default()).is_ok() {
            let again = folder.0.join("again");
            sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &()).unwrap();
            prop_assert_eq!(std::fs::read(again).unwrap(), bytes);
        }
    }
}
