//! A delta is never much larger than what zstd -19 makes of the derivative.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow_ipc::writer::FileWriter;
use common::{gsm8k, round_trip};
use parquet::arrow::ArrowWriter;
use sparse_dataset::{CompressSpec, Effort};

/// Names and contents of files.
type Cases = Vec<(&'static str, String)>;

/// Magic, digests, checksum, and a description of some columns.
const OVERHEAD: u64 = 300;

/// Bytes that follow no rule, as letters.
fn noise(length: usize, seed: u64) -> String {
    let mut state = seed;
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            char::from(letters[(state >> 58) as usize])
        })
        .collect()
}

fn limit(derivative: &[u8]) -> u64 {
    let zstd = zstd::bulk::compress(derivative, 19).unwrap().len() as u64;
    zstd + zstd / 100 + OVERHEAD
}

fn rows(row: &dyn Fn(u64) -> String) -> String {
    (0..2_000).map(row).collect()
}

fn words(n: u64) -> String {
    let of = |k: u64| {
        [
            "river", "stone", "seven", "light", "of", "and", "walks", "to",
        ][(n * 31 + k * k * 7) as usize % 8]
    };
    (0..12).map(of).collect::<Vec<_>>().join(" ")
}

fn noisy() -> Cases {
    vec![
        (
            "noise.jsonl",
            rows(&|n| format!("{{\"data\": \"{}\"}}\n", noise(90, n))),
        ),
        (
            "noise.csv",
            "a,b\n".to_owned() + &rows(&|n| format!("{},{}\n", noise(40, n), noise(40, n + 9_999))),
        ),
        (
            "numbers.csv",
            "x,y,z\n".to_owned()
                + &rows(&|n| {
                    format!(
                        "{},{},{}\n",
                        n * n % 9_973,
                        n * 7_919 % 10_007,
                        n * 31 % 101
                    )
                }),
        ),
    ]
}

fn text() -> Cases {
    vec![
        (
            "text.jsonl",
            rows(&|n| format!("{{\"id\": {n}, \"text\": \"{}\"}}\n", words(n))),
        ),
        (
            "text.json",
            format!(
                "[{}]",
                (0..2_000)
                    .map(|n| format!("{{\"text\": \"{}\"}}", words(n)))
                    .collect::<Vec<_>>()
                    .join(",\n")
            ),
        ),
        (
            "same.jsonl",
            rows(&|_| "{\"text\": \"always the same words, line after line\"}\n".to_owned()),
        ),
    ]
}

fn repeats_and_shapes() -> Cases {
    vec![
        (
            "cycle.jsonl",
            rows(&|n| format!("{{\"id\": \"{}\"}}\n", noise(40, n % 50))),
        ),
        (
            "shapes.jsonl",
            rows(&|n| format!("{{\"k{}\": {n}, \"j{}\": null}}\n", n % 700, n % 13)),
        ),
        (
            "escapes.jsonl",
            rows(&|n| {
                format!(
                    "{{\"a\": \"\\u00{:02x}\\/\\u0041 {}\"}}\n",
                    n % 256,
                    noise(20, n)
                )
            }),
        ),
    ]
}

fn others() -> Cases {
    vec![("real.jsonl", gsm8k()), ("empty.jsonl", String::new())]
}

/// The lines of `text.jsonl` and `noise.jsonl` in columns.
fn columnar(name: &str) -> Vec<u8> {
    let texts = StringArray::from_iter_values((0..2_000).map(words));
    let noise = StringArray::from_iter_values((0..2_000).map(|n| noise(40, n)));
    let numbers = Int64Array::from_iter_values((0..2_000).map(|n| n * 7_919 % 10_007));
    let columns: [(&str, ArrayRef); 3] = [
        ("text", Arc::new(texts)),
        ("noise", Arc::new(noise)),
        ("number", Arc::new(numbers)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut out = Vec::new();
    if name.ends_with(".parquet") {
        let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    } else {
        let mut writer = FileWriter::try_new(&mut out, &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
    }
    out
}

fn check(name: &str, bytes: &[u8], effort: Effort) {
    // A base that has nothing to do with it.
    let base = b"{\"unrelated\": 1}\n{\"unrelated\": 2}\n";
    let spec = CompressSpec {
        effort,
        ..CompressSpec::default()
    };
    let report = round_trip(("base.jsonl", base), (name, bytes), &spec);
    let limit = limit(bytes);
    assert!(
        report.delta_bytes <= limit,
        "{name}: {} bytes, at most {limit}",
        report.delta_bytes
    );
}

fn check_all(cases: Vec<(&str, impl AsRef<[u8]>)>, effort: Effort) {
    for (name, bytes) in cases {
        check(name, bytes.as_ref(), effort);
    }
}

/// A test of each effort, which run side by side.
macro_rules! efforts {
    ($($group:ident: $cases:expr;)*) => {$(
        mod $group {
            use super::*;

            #[test]
            fn high() {
                check_all($cases, Effort::Small);
            }

            #[test]
            fn highest() {
                check_all($cases, Effort::Smallest);
            }
        }
    )*};
}

efforts! {
    of_noise: noisy();
    of_text: text();
    of_repeats_and_shapes: repeats_and_shapes();
    of_others: others();
    of_parquet: vec![("d.parquet", columnar("d.parquet"))];
    of_arrow: vec![("d.arrow", columnar("d.arrow"))];
}
