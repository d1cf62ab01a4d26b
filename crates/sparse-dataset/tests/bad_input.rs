//! Bad input ends in one error that says where; nothing stays behind.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use arrow_schema::{Field, Schema};
use common::{Folder, compress, gsm8k};
use parquet::arrow::ArrowWriter;
use sparse_dataset::{CompressSpec, Error, FILE_NAME};

/// The message of compressing `derivative` against GSM8K.
fn refusal(name: &str, derivative: &[u8]) -> String {
    let folder = Folder::new();
    let base = folder.write("base.jsonl", gsm8k().as_bytes());
    let derivative = folder.write(name, derivative);
    let error = compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap_err();
    assert_eq!(
        folder.names(),
        ["base.jsonl", name],
        "something was left behind"
    );
    error
        .to_string()
        .replace(&folder.0.display().to_string(), "")
}

#[test]
fn malformed_lines_are_named() {
    assert_eq!(
        refusal("d.jsonl", b"{\"a\":1}\n{\"a\":}\n"),
        "/d.jsonl: line 2: expected a value, found \"}\\n\""
    );
    assert_eq!(
        refusal("d.jsonl", b"{\"a\":1}\n\n{\"a\":1"),
        "/d.jsonl: line 3: expected more of the value, found the end"
    );
    assert_eq!(
        refusal("d.csv", b"a,b\n1,2\n\"x\ny\",1\n3\n"),
        "/d.csv: line 5: expected as many fields as the header, found \"3\\n\""
    );
    assert_eq!(
        refusal("d.csv", b"a,b\n1,\"open\n"),
        "/d.csv: line 2: expected a closing quote, found the end of the file"
    );
    assert_eq!(
        refusal("d.json", b"[{\"a\":1},\n{\"a\" 1}]"),
        "/d.json: line 2: expected `:` after the key, found \"1}]\""
    );
    assert_eq!(
        refusal("d.jsonl", b"{\"a\":1,}\n"),
        "/d.jsonl: line 1: expected a value after the comma, found \"}\\n\""
    );
}

#[test]
fn lines_end_at_cr_too() {
    assert_eq!(
        refusal("d.csv", b"a,b\r1,a\r2,b\r3\r4,d\r"),
        "/d.csv: line 4: expected as many fields as the header, found \"3\\r\""
    );
    assert_eq!(
        refusal("d.csv", b"a,b\r\n1,a\r\n3\r\n"),
        "/d.csv: line 3: expected as many fields as the header, found \"3\\r\\n\""
    );
}

#[test]
fn lines_of_json_may_start_with_a_byte_order_mark() {
    let bytes = b"\xef\xbb\xbf{\"id\": 1}\n{\"id\": 2}\n";
    let base = gsm8k();
    let spec = CompressSpec::default();
    common::round_trip(("b.jsonl", base.as_bytes()), ("d.json", bytes), &spec);
    common::round_trip(("b.json", bytes), ("d.json", bytes), &spec);
}

#[test]
fn duplicate_columns_are_named() {
    assert_eq!(
        refusal("d.csv", b"a,b,a\n1,2,3\n"),
        "/d.csv: line 1: duplicate column name \"a\""
    );
    assert_eq!(
        refusal("d.jsonl", b"{\"a\":1}\n{\"a\":1,\"\\u0061\":2}\n"),
        "/d.jsonl: line 2: duplicate column name \"a\""
    );
}

#[test]
fn damaged_columnar_files_are_refused() {
    assert!(
        refusal("d.parquet", b"PAR1 this is not a Parquet file PAR1").starts_with("/d.parquet: ")
    );
    assert!(refusal("d.arrow", b"ARROW1\0\0 nor is this an Arrow file").starts_with("/d.arrow: "));
}

#[test]
fn dictionaries_that_unfold_to_too_much_are_refused() {
    // 313 bytes whose 1,024 rows are one value of 2 MB.
    let bomb = include_bytes!("data/value_of_2_mb_in_1024_rows.parquet");
    let said = refusal("d.parquet", bomb);
    assert!(
        said.starts_with("/d.parquet: what the rows unfold to is "),
        "{said}"
    );
}

#[test]
fn unknown_formats_and_missing_files_are_named() {
    assert!(refusal("d.xlsx", b"").contains("unsupported format"));
    let folder = Folder::new();
    let missing = folder.0.join("missing.jsonl");
    assert!(matches!(
        compress(&missing, &missing, &folder.0, &CompressSpec::default()),
        Err(Error::Io { .. })
    ));
}

#[test]
fn malformed_lines_can_be_kept_as_they_are() {
    let spec = CompressSpec {
        lenient: true,
        ..CompressSpec::default()
    };
    for (name, bytes) in [
        (
            "d.jsonl",
            b"{\"a\":1}\n{broken\n{\"a\":1,\"a\":2}\n".as_slice(),
        ),
        ("d.csv", b"a,b\n1,2\n3\n4,5,6\n"),
        // A quote without a partner.
        ("d.tsv", b"a\tb\n1\t\"two\n3\tfour\n5\tsix"),
    ] {
        common::round_trip(("base.jsonl", gsm8k().as_bytes()), (name, bytes), &spec);
        common::round_trip((name, bytes), (name, bytes), &spec);
    }
}

#[test]
fn a_changed_base_is_refused() {
    let folder = Folder::new();
    let base = folder.write("base.jsonl", gsm8k().as_bytes());
    let derivative = folder.write("d.jsonl", gsm8k().as_bytes());
    compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap();
    folder.write("base.jsonl", gsm8k().replace("16", "17").as_bytes());
    let output = folder.0.join("again.jsonl");
    let error = sparse_dataset::reconstruct(&base, &folder.0, &output, 2, &()).unwrap_err();
    assert!(matches!(error, Error::WrongBase { .. }), "{error}");
    assert!(!output.exists());
}

#[test]
fn every_flipped_or_missing_byte_is_noticed() {
    let folder = Folder::new();
    let base = folder.write("base.jsonl", gsm8k().as_bytes());
    let text: String = gsm8k()
        .lines()
        .rev()
        .take(12)
        .map(|line| line.replace("Janet", "Jan") + "\n")
        .collect();
    let derivative = folder.write("d.jsonl", text.as_bytes());
    compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap();
    let artifact = std::fs::read(folder.0.join(FILE_NAME)).unwrap();
    for at in 0..artifact.len() {
        let mut flipped = artifact.clone();
        flipped[at] ^= 1 << (at % 8);
        for damaged in [&flipped[..], &artifact[..at]] {
            let path = folder.write("damaged.delta", damaged);
            sparse_dataset::verify(&path, None, 2, &()).unwrap_err();
        }
    }
}

#[test]
fn damage_behind_a_right_checksum_is_an_error_and_not_a_panic() {
    use sha2::{Digest, Sha256};
    let folder = Folder::new();
    let base = folder.write("base.jsonl", gsm8k().as_bytes());
    let text: String = gsm8k()
        .lines()
        .rev()
        .take(6)
        .map(|line| line.replace("the", "a") + "\n")
        .collect();
    let derivative = folder.write("d.jsonl", text.as_bytes());
    compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap();
    let artifact = std::fs::read(folder.0.join(FILE_NAME)).unwrap();
    let body = artifact.len() - 8;
    for at in 8..body {
        for flip in [1u8, 0x80, 0xff] {
            let mut damaged = artifact[..body].to_vec();
            damaged[at] ^= flip;
            let digest = Sha256::digest(&damaged);
            damaged.extend_from_slice(&digest[..8]);
            let path = folder.write("damaged.delta", &damaged);
            // A byte that only a report reads may change without harm to the file.
            let _ = sparse_dataset::verify(&path, Some(&base), 2, &());
        }
    }
}

#[test]
fn shards_of_different_columns_are_refused() {
    let folder = Folder::new();
    folder.write("base/a.csv", b"x,y\n1,2\n");
    folder.write("base/b.csv", b"x,z\n1,2\n");
    let derivative = folder.write("d.csv", b"x\n1\n");
    let mixed = || {
        let base = folder.0.join("base");
        compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap_err()
    };
    let error = mixed();
    assert!(matches!(error, Error::MixedSchemas { .. }), "{error}");
    // Of Parquet files the types count too.
    for name in ["base/a.csv", "base/b.csv"] {
        std::fs::remove_file(folder.0.join(name)).unwrap();
    }
    write_parquet(
        &folder,
        "base/a.parquet",
        "x",
        Arc::new(Int32Array::from(vec![1])),
    );
    write_parquet(
        &folder,
        "base/b.parquet",
        "x",
        Arc::new(Int64Array::from(vec![1])),
    );
    let error = mixed();
    assert!(matches!(error, Error::MixedSchemas { .. }), "{error}");
}

fn write_parquet(folder: &Folder, name: &str, columns: &str, array: ArrayRef) {
    let columns: Vec<&str> = columns.split(' ').collect();
    let fields: Vec<Field> = columns
        .iter()
        .map(|name| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), vec![array; columns.len()]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    folder.write(name, &bytes);
}

#[test]
fn duplicate_columns_of_parquet_files_are_named() {
    let folder = Folder::new();
    let base = folder.write("base.jsonl", gsm8k().as_bytes());
    write_parquet(
        &folder,
        "d.parquet",
        "x y x",
        Arc::new(Int32Array::from(vec![1])),
    );
    let derivative = folder.0.join("d.parquet");
    let error = compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap_err();
    assert!(
        matches!(&error, Error::DuplicateColumn { column, .. } if column == "x"),
        "{error}"
    );
}

/// A folder of one file comes back as one, and no other file of a folder changes before all can.
#[test]
fn folders_come_back_as_folders_or_not_at_all() {
    let folder = Folder::new();
    let base = folder.write("base.jsonl", gsm8k().as_bytes());
    folder.write("one/data/train.jsonl", gsm8k().as_bytes());
    let derivative = folder.0.join("one");
    compress(&base, &derivative, &folder.0, &CompressSpec::default()).unwrap();
    let again = folder.0.join("a/b");
    sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &()).unwrap();
    let rebuilt = std::fs::read(again.join("data/train.jsonl")).unwrap();
    assert_eq!(rebuilt, gsm8k().as_bytes());

    folder.write("two/test.jsonl", b"{\"a\": 1}\n");
    folder.write("two/train.jsonl", gsm8k().as_bytes());
    let delta = folder.0.join("delta");
    std::fs::create_dir(&delta).unwrap();
    compress(
        &base,
        &folder.0.join("two"),
        &delta,
        &CompressSpec::default(),
    )
    .unwrap();
    let out = folder.0.join("out");
    std::fs::create_dir_all(out.join("train.jsonl")).unwrap();
    let refused = sparse_dataset::reconstruct(&base, &delta, &out, 2, &());
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    assert!(!out.join("test.jsonl").exists());
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn names_that_are_no_text_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let base = folder.write("base.jsonl", gsm8k().as_bytes());
    folder.write("many/x.jsonl", gsm8k().as_bytes());
    let name = std::ffi::OsStr::from_bytes(b"\xff\xfe.jsonl");
    if std::fs::write(folder.0.join("many").join(name), b"{}\n").is_err() {
        return; // a file system that has no such names
    }
    let many = folder.0.join("many");
    let refused = compress(&base, &many, &folder.0, &CompressSpec::default());
    assert!(
        matches!(refused, Err(Error::FileName { .. })),
        "{refused:?}"
    );
}

#[test]
fn files_of_another_kind_than_their_name_says_are_told() {
    let folder = Folder::new();
    let base = folder.write("base.jsonl", b"{\"a\": 1}\n");
    for (name, start, said) in [
        (
            "a.jsonl",
            &b"\x1f\x8b\x08\0\0\0\0\0"[..],
            "compressed by gzip",
        ),
        ("a.json", b"\x28\xb5\x2f\xfd\x04\0", "compressed by zstd"),
        ("a.csv", b"\xfd7zXZ\0\0\x04", "compressed by xz"),
        ("a.tsv", b"BZh91AY&SY\0", "compressed by bzip2"),
        ("b.parquet", b"PK\x03\x04\x14\0", "a zip archive"),
        ("b.csv", b"\xff\xfea\0,\0b\0", "text in UTF-16"),
        ("b.jsonl", b"\xfe\xff\0{\0}", "text in UTF-16"),
        ("c.csv", b"PAR1\x15\x04\x15", "a Parquet file"),
        ("c.jsonl", b"ARROW1\0\0", "an Arrow file"),
        ("d.parquet", b"PARE1234PARE", "an encrypted Parquet file"),
        ("d.feather", b"FEA1....", "a Feather file of version 1"),
    ] {
        let path = folder.write(name, start);
        for (one, other) in [(&base, &path), (&path, &base)] {
            let error = compress(one, other, &folder.0, &CompressSpec::default());
            let error = error.unwrap_err();
            assert_eq!(error.to_string(), format!("{}: {said}", path.display()));
            assert!(error.hint().is_some());
        }
    }
    // Tables whose first column is called so.
    let table = folder.write("e.csv", b"PAR1,PAR2\n1,2\n");
    compress(&table, &table, &folder.0, &CompressSpec::default()).unwrap();
}

#[test]
fn features_that_are_not_known_are_refused() {
    let folder = Folder::new();
    let base = folder.write("base.jsonl", b"{\"a\": 1}\n");
    compress(&base, &base, &folder.0, &CompressSpec::default()).unwrap();
    let path = folder.0.join(FILE_NAME);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[9] |= 128;
    bytes.insert(11 + 64, 8);
    let end = bytes.len() - 8;
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes[..end]);
    bytes[end..].copy_from_slice(&digest[..8]);
    std::fs::write(&path, bytes).unwrap();
    let error = sparse_dataset::info(&folder.0).unwrap_err();
    assert!(error.hint().unwrap().contains("update"));
    let error = error.to_string();
    assert!(error.contains("further feature bits 0b00001000"), "{error}");
    std::fs::write(&path, "something else").unwrap();
    let error = sparse_dataset::info(&folder.0).unwrap_err();
    assert!(error.hint().unwrap().contains("dataset compress"));
}

#[test]
fn a_full_disk_is_told_with_what_helps() {
    let error = Error::Io {
        path: "out".into(),
        source: std::io::ErrorKind::StorageFull.into(),
    };
    assert!(error.hint().unwrap().contains("another disk"));
}
