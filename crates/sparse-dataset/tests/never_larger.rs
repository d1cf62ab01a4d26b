//! A delta is never much larger than what zstd -19 makes of the derivative.
#![allow(clippy::unwrap_used)]

mod common;

use common::{gsm8k, round_trip};
use sparse_dataset::{CompressSpec, Effort};

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

#[test]
fn whatever_the_derivative_holds() {
    let rows = |row: &dyn Fn(u64) -> String| (0..2_000).map(row).collect::<String>();
    let words = |n: u64| {
        let of = |k: u64| {
            [
                "river", "stone", "seven", "light", "of", "and", "walks", "to",
            ][(n * 31 + k * k * 7) as usize % 8]
        };
        (0..12).map(of).collect::<Vec<_>>().join(" ")
    };
    let cases: Vec<(&str, String)> = vec![
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
        ("real.jsonl", gsm8k()),
        ("empty.jsonl", String::new()),
    ];
    // A base that has nothing to do with them.
    let base = b"{\"unrelated\": 1}\n{\"unrelated\": 2}\n";
    for effort in [Effort::Small, Effort::Smallest] {
        let spec = CompressSpec {
            effort,
            ..CompressSpec::default()
        };
        for (name, text) in &cases {
            let report = round_trip(("base.jsonl", base), (name, text.as_bytes()), &spec);
            let limit = limit(text.as_bytes());
            assert!(
                report.delta_bytes <= limit,
                "{name}: {} bytes, at most {limit}",
                report.delta_bytes
            );
        }
    }
}
