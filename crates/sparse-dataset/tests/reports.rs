//! What a delta says about rows and columns, and what a key decides.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Folder, compress, round_trip, shuffled};
use sparse_dataset::{CompressReport, CompressSpec, Format, SplitReport};

const WORDS: [&str; 16] = [
    "river", "stone", "seven", "light", "walks", "under", "green", "paper", "cloud", "table",
    "horse", "fifth", "maybe", "quiet", "north", "sugar",
];

/// Text that no other row has.
fn text(row: usize) -> String {
    let mut state = row as u64 + 1;
    let mut word = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        WORDS[(state >> 60) as usize]
    };
    (0..20).map(|_| word()).collect::<Vec<_>>().join(" ")
}

fn label(row: usize) -> &'static str {
    ["pos", "neg", "neutral"][row * 7 % 11 % 3]
}

/// Rows numbered by `rows`, with cells that `cells` may change.
fn table(rows: &[usize], cells: impl Fn(usize) -> (String, String)) -> String {
    let row = |&row: &usize| {
        let (text, label) = cells(row);
        format!("{{\"id\": {row}, \"text\": \"{text}\", \"label\": \"{label}\"}}\n")
    };
    rows.iter().map(row).collect()
}

fn plain(row: usize) -> (String, String) {
    (text(row), label(row).to_owned())
}

fn base() -> String {
    table(&(0..600).collect::<Vec<_>>(), plain)
}

fn pair(base: (&str, &str), derivative: (&str, &str), key: Option<&str>) -> CompressReport {
    let spec = CompressSpec {
        key: key.map(str::to_owned),
        ..CompressSpec::default()
    };
    round_trip(
        (base.0, base.1.as_bytes()),
        (derivative.0, derivative.1.as_bytes()),
        &spec,
    )
}

fn split(derivative: &str) -> SplitReport {
    pair(("b.jsonl", &base()), ("d.jsonl", derivative), None).splits[0].clone()
}

#[test]
fn only_the_objects_of_a_document_are_rows() {
    let document = |rows: std::ops::Range<usize>| {
        let row = |n: usize| format!("{{\"id\": {n}, \"text\": \"{}\"}}", text(n));
        let rows: Vec<String> = rows.map(row).collect();
        format!("{{\"data\": [{}], \"version\": \"1\"}}", rows.join(", "))
    };
    let base = document(0..600);
    for (rows, kept) in [(100..600, 500), (7..8, 1)] {
        let found = pair(("b.json", &base), ("d.json", &document(rows)), None).splits[0].clone();
        assert_eq!((found.rows, found.rows_new), (kept, 0));
    }
    let alone = pair(("b.json", &base), ("d.json", "{\"version\": \"2\"}"), None);
    assert_eq!(alone.splits[0].rows, 1);
}

#[test]
fn flipped_labels_and_replaced_texts_are_edits() {
    let all: Vec<usize> = (0..600).collect();
    let flipped = table(&all, |row| {
        let (text, label) = plain(row);
        let other = if label == "pos" { "neg" } else { "pos" };
        let label = if row % 20 == 7 { other } else { &label };
        (text, label.to_owned())
    });
    let found = split(&flipped);
    assert_eq!((found.rows_referenced, found.rows_edited), (600, 30));

    let replaced = table(&all, |row| match row % 50 {
        9 => (text(row + 10_000), plain(row).1),
        _ => plain(row),
    });
    let found = split(&replaced);
    assert_eq!((found.rows_edited, found.rows_new), (12, 0));
}

#[test]
fn insertions_and_other_formats_edit_nothing() {
    let rows: Vec<usize> = (0..600).flat_map(|row| [row, row + 5_000]).collect();
    let rows: Vec<usize> = rows
        .into_iter()
        .filter(|row| *row < 600 || row % 40 == 0)
        .collect();
    let found = split(&table(&rows, plain));
    assert_eq!(
        (found.rows, found.rows_new, found.rows_edited),
        (615, 15, 0)
    );

    let csv: String = (0..600)
        .map(|row| format!("{row}.0,{},{}\n", text(row), label(row)))
        .collect();
    let csv = format!("id,text,label\n{csv}");
    let found = pair(("b.jsonl", &base()), ("d.csv", &csv), None).splits[0].clone();
    assert_eq!((found.rows_referenced, found.rows_edited), (600, 0));
}

/// Texts moved by 100 rows under the ids that stay.
fn shifted() -> String {
    let all: Vec<usize> = (0..600).collect();
    table(&all, |row| {
        let other = (row + 100) % 600;
        (text(other), label(other).to_owned())
    })
}

#[test]
fn a_key_decides_which_rows_belong_together() {
    let by = |key: &str| {
        let report = pair(("b.jsonl", &base()), ("d.jsonl", &shifted()), Some(key));
        report.splits[0].clone()
    };
    // The ids count on; the texts go back to the first row once.
    assert_eq!((by("id").rows_edited, by("id").rows_moved), (600, 0));
    assert_eq!((by("text").rows_edited, by("text").rows_moved), (600, 1));
}

#[test]
fn rows_of_new_keys_are_new_however_like_others_they_are() {
    let likeness = |n: usize| {
        let (text, label) = plain(n);
        let id = n + 5_000;
        format!("{{\"id\": {id}, \"text\": \"{text}\", \"label\": \"{label}\"}}\n")
    };
    let more = base() + &(0..50).map(|n| likeness(n * 7)).collect::<String>();
    let folder = Folder::new();
    let old = folder.write("b.jsonl", base().as_bytes());
    let new = folder.write("d.jsonl", more.as_bytes());
    for (key, counts) in [(None, (0, 50)), (Some("id".to_owned()), (50, 0))] {
        let spec = CompressSpec {
            key,
            ..CompressSpec::default()
        };
        let report = compress(&old, &new, &folder.0, &spec).unwrap();
        let found = &report.splits[0];
        assert_eq!((found.rows_new, found.rows_edited), counts);
        let examples = sparse_dataset::examples(&folder.0, &old).unwrap();
        let kinds: Vec<&str> = examples.iter().map(|example| example.what).collect();
        assert_eq!(kinds.contains(&"new"), counts.0 > 0, "{kinds:?}");
        assert_eq!(kinds.contains(&"edited"), counts.1 > 0, "{kinds:?}");
        let again = folder.0.join("again.jsonl");
        sparse_dataset::reconstruct(&old, &folder.0, &again, 2, &()).unwrap();
        assert!(std::fs::read(&again).unwrap() == more.as_bytes());
    }
}

#[test]
fn a_key_that_the_base_lacks_is_refused() {
    let folder = Folder::new();
    let base = folder.write("b.jsonl", b"{\"text\": \"one\"}\n");
    let derivative = folder.write("d.jsonl", b"{\"id\": 1, \"text\": \"one\"}\n");
    let spec = CompressSpec {
        key: Some("id".to_owned()),
        ..CompressSpec::default()
    };
    let error = compress(&base, &derivative, &folder.0, &spec).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("b.jsonl: no column \"id\"; columns: text"),
        "{error}"
    );
}

#[test]
fn a_filter_moves_nothing_and_rows_are_numbered_without_the_header() {
    let csv = |rows: &[usize]| {
        let row = |&row: &usize| format!("{row},{}\n", text(row));
        "id,text\n".to_owned() + &rows.iter().map(row).collect::<String>()
    };
    let all: Vec<usize> = (0..300).collect();
    let kept: Vec<usize> = all.iter().copied().filter(|row| row % 3 != 0).collect();
    let folder = Folder::new();
    let base = folder.write("b.csv", csv(&all).as_bytes());
    let derivative = folder.write("d.csv", csv(&kept).as_bytes());
    let report = compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap();
    assert_eq!(report.splits[0].rows_moved, 0);
    let examples = sparse_dataset::examples(&folder.0, &base).unwrap();
    let found: Vec<_> = examples
        .iter()
        .map(|e| (e.what, e.row, e.base_row))
        .collect();
    assert_eq!(found, [("kept", 0, Some(1))]);
}

#[test]
fn changes_of_columns_are_told_apart() {
    let row = |row: usize| {
        format!(
            "{{\"body\": \"{}\", \"id\": \"{row}\", \"shout\": \"{}\", \"seed\": {}}}\n",
            text(row),
            label(row).to_uppercase(),
            row * 7_919 % 10_007,
        )
    };
    let found = split(&(0..600).map(row).collect::<String>());
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(found.columns_renamed, [pair("text", "body")]);
    assert_eq!(found.columns_cast, [("id".to_owned(), "integer", "text")]);
    let computed = [("shout".to_owned(), vec!["label".to_owned()])];
    assert_eq!(found.columns_computed, computed);
    assert_eq!(found.columns_added, ["seed"]);
    assert_eq!(found.columns_dropped, ["label"]);
    assert!(found.columns_reordered);
    assert_eq!(found.rows_edited, 0);

    let same = split(&base());
    assert!(same.columns_added.is_empty() && same.columns_computed.is_empty());
    assert!(same.columns_renamed.is_empty() && same.columns_cast.is_empty());
    assert!(!same.columns_reordered);
}

#[test]
fn splits_in_folders_come_back_and_what_is_no_data_is_named() {
    let folder = Folder::new();
    let base = folder.write("base.jsonl", base().as_bytes());
    let lines = base_lines();
    folder.write("d/data/test/a.jsonl", lines[..50].concat().as_bytes());
    folder.write("d/train.jsonl", lines[50..].concat().as_bytes());
    folder.write("d/README.md", b"a card");
    let derivative = folder.0.join("d");
    let report = compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap();
    assert_eq!(report.skipped, ["README.md"]);
    let names: Vec<&str> = report
        .splits
        .iter()
        .map(|split| split.name.as_str())
        .collect();
    assert_eq!(names, ["data/test/a.jsonl", "train.jsonl"]);
    let again = folder.0.join("again");
    sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &()).unwrap();
    for name in names {
        let read = |folder: &std::path::Path| std::fs::read(folder.join(name)).unwrap();
        assert_eq!(read(&again), read(&derivative), "{name}");
    }
}

fn base_lines() -> Vec<String> {
    base().lines().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_shuffle_over_shards_costs_its_permutation() {
    let count = 8_000usize;
    let (rows, ideal) = shuffled(count);
    let lines = |rows: &[usize]| {
        let line = |row: &usize| format!("{{\"k\": \"{} {row}\"}}\n", text(*row));
        rows.iter().map(line).collect::<String>()
    };
    let folder = Folder::new();
    let all: Vec<usize> = (0..count).collect();
    let base = folder.write("base.jsonl", lines(&all).as_bytes());
    for (shard, rows) in rows.chunks(count / 4).enumerate() {
        folder.write(&format!("d/train-{shard}.jsonl"), lines(rows).as_bytes());
    }
    let derivative = folder.0.join("d");
    let report = compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap();
    // Each shard has a header as well.
    let most = ideal * 1.05 + 4.0 * 100.0;
    assert!(
        (report.delta_bytes as f64) < most,
        "{} of {most}",
        report.delta_bytes
    );
    let again = folder.0.join("again");
    sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &()).unwrap();
    for shard in 0..4 {
        let name = format!("train-{shard}.jsonl");
        let read = |folder: &std::path::Path| std::fs::read(folder.join(&name)).unwrap();
        assert_eq!(read(&again), read(&derivative), "{name}");
    }
    assert!(sparse_dataset::verify(&folder.0, Some(&base), 2, &()).is_ok());
    assert!(
        report
            .splits
            .iter()
            .all(|split| split.format == Format::JsonLines)
    );
}
