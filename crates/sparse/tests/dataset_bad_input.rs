//! Bad and unusual data files through `sparse dataset`: refused with one message, exit code 2 and
//! nothing half-written, or rebuilt byte for byte.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Desk, Run};

const SPARSE: &str = env!("CARGO_BIN_EXE_sparse");
const GIGABYTE: u64 = 1 << 30;

fn desk() -> Desk {
    let desk = Desk::new();
    let base: String = (0..300)
        .map(|n| {
            format!(
                "{{\"id\": {n}, \"text\": \"row {n} says {}\"}}\n",
                n * 7919 % 1000
            )
        })
        .collect();
    desk.put("base.jsonl", base.as_bytes());
    desk
}

/// Runs within 2 GB of address space.
fn bounded(desk: &Desk, line: &str) -> Run {
    let script = format!("ulimit -v 2000000; exec {SPARSE} {line}");
    Run::of(desk.command("sh", &["-c", &script]).output().unwrap())
}

/// The line is refused with this message, and leaves everything as it was.
fn refused(desk: &Desk, line: &str, message: &str) {
    let before = desk.list();
    let run = bounded(desk, line);
    assert_eq!(run.code, Some(2), "{line}: {}{}", run.stdout, run.stderr);
    assert!(run.stderr.starts_with("error: "), "{line}: {}", run.stderr);
    assert!(run.stderr.contains(message), "{line}: {}", run.stderr);
    assert!(!run.stderr.contains("panicked"), "{line}: {}", run.stderr);
    // One message: its first line, and lines that belong to it.
    let (first, rest) = run.stderr.split_once('\n').unwrap();
    assert!(
        rest.lines().all(|line| line.starts_with("hint: ")),
        "{line}: more than {first}: {rest}"
    );
    assert_eq!(desk.list(), before, "{line}");
}

#[test]
fn malformed_rows_are_refused_by_line() {
    let desk = desk();
    for (name, bytes, message) in [
        ("d.jsonl", "{\"id\": 1}\n{\"id\": 2\n", "d.jsonl: line 2"),
        ("d.jsonl", "{\"id\": 1}\nnot json\n", "d.jsonl: line 2"),
        ("d.json", "[{\"id\": 1},\n{\"id\" 2}]", "d.json: line 2"),
        ("d.csv", "id,text\n1,a\n2\n", "d.csv: line 3"),
        ("d.csv", "id,text\n1,\"a\n2,b\n", "d.csv: line 2"),
        ("d.tsv", "id\ttext\n1\ta\tb\n", "d.tsv: line 2"),
        (
            "d.csv",
            "id,text,id\n1,a,2\n",
            "duplicate column name \"id\"",
        ),
        (
            "d.jsonl",
            "{\"id\": 1, \"id\": 2}\n",
            "duplicate column name \"id\"",
        ),
        ("d.parquet", "PAR1 nothing of the kind PAR1", "d.parquet"),
        ("d.arrow", "ARROW1\0\0 neither", "d.arrow"),
    ] {
        desk.put(name, bytes.as_bytes());
        refused(
            &desk,
            &format!("dataset compress base.jsonl {name} -o out"),
            message,
        );
        // As a base the same.
        refused(
            &desk,
            &format!("dataset compress {name} base.jsonl -o out"),
            message,
        );
    }
}

/// Hints that name `--lenient` are right: with it the same command works and nothing is lost.
#[test]
fn lenient_does_what_hints_say_of_it() {
    let desk = desk();
    for (name, bytes) in [
        (
            "d.jsonl",
            "{\"id\": 1}\n{\"id\": 2\nnot json\n{\"id\": 3}\n",
        ),
        ("d.jsonl", "{\"id\": 1, \"id\": 2}\n{\"id\": 3}\n"),
        ("d.csv", "id,text\n1,a\n2\n3,b,c\n"),
        ("d.csv", "id,text\n1,\"a\n2,b\n"),
        ("d.tsv", "id\ttext\n1\ta\tb\n2\tc\n"),
    ] {
        desk.put(name, bytes.as_bytes());
        for (base, derivative) in [("base.jsonl", name), (name, "base.jsonl")] {
            let line = format!("dataset compress {base} {derivative} -o out");
            let words: Vec<&str> = line.split(' ').collect();
            let run = desk.run(&words);
            assert_eq!(run.code, Some(2), "{line}");
            assert!(run.stderr.contains("--lenient"), "{line}: {}", run.stderr);
            let run = desk.run(&[words.as_slice(), &["--lenient"]].concat());
            assert_eq!(run.code, Some(0), "{line}: {}", run.stderr);
            let again = format!("again.{}", derivative.rsplit('.').next().unwrap());
            let run = desk.run(&["dataset", "reconstruct", base, "out", "-o", &again]);
            assert_eq!(run.code, Some(0), "{line}: {}", run.stderr);
            let (found, expected) = (desk.path(&again), desk.path(derivative));
            assert!(
                fs::read(&found).unwrap() == fs::read(expected).unwrap(),
                "{line}"
            );
            fs::remove_dir_all(desk.path("out")).unwrap();
            fs::remove_file(found).unwrap();
        }
    }
    // A document has no lines to keep: the hint says so, and it is so.
    desk.put("d.json", b"[{\"id\": 1},\n{\"id\" 2}]");
    for more in [&[][..], &["--lenient"]] {
        let line = ["dataset", "compress", "base.jsonl", "d.json", "-o", "out"];
        let run = desk.run(&[&line, more].concat());
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        assert!(
            run.stderr.contains("only where each line is a row"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn mixed_schemas_between_shards_are_refused() {
    let desk = desk();
    desk.put("shards/train-0.csv", b"a,b\n1,2\n");
    desk.put("shards/train-1.csv", b"a,c\n1,2\n");
    refused(
        &desk,
        "dataset compress shards base.jsonl -o out",
        "columns differ from those of shards/train-0.csv",
    );
}

#[test]
fn a_cell_of_2_gigabytes_is_refused_within_bounds() {
    let desk = desk();
    // Holes in a file are zeros that take no room on the disk.
    for (name, before, after) in [
        ("d.jsonl", "{\"id\": 1}\n{\"text\": \"", "\"}\n"),
        ("d.csv", "id,text\n1,\"", "\"\n2,b\n"),
        ("d.json", "[{\"id\": 1},\n{\"text\": \"", "\"}]"),
    ] {
        let mut file = File::create(desk.path(name)).unwrap();
        file.write_all(before.as_bytes()).unwrap();
        file.seek(SeekFrom::Start(2 * GIGABYTE)).unwrap();
        file.write_all(after.as_bytes()).unwrap();
        refused(
            &desk,
            &format!("dataset compress base.jsonl {name} -o out"),
            "at most 134217728 is supported",
        );
        fs::remove_file(desk.path(name)).unwrap();
    }
}

#[test]
fn pages_that_unfold_to_too_much_are_refused() {
    let desk = desk();
    // 17 kB that hold one page of 540 MB of zeros.
    let bomb = include_bytes!("../../sparse-dataset/tests/data/page_of_540_mb.parquet");
    desk.put("bomb.parquet", bomb);
    refused(
        &desk,
        "dataset compress base.jsonl bomb.parquet -o out",
        "bomb.parquet: a page of column \"a\" is 566231050, at most 536870912 is supported",
    );
    refused(
        &desk,
        "dataset compress bomb.parquet base.jsonl -o out",
        "a page of column",
    );
}

#[test]
fn dictionaries_that_unfold_to_too_much_are_refused() {
    let desk = desk();
    // 313 bytes whose 1,024 rows are one value of 2 MB.
    let bomb = include_bytes!("../../sparse-dataset/tests/data/value_of_2_mb_in_1024_rows.parquet");
    desk.put("bomb.parquet", bomb);
    for line in [
        "dataset compress base.jsonl bomb.parquet -o out",
        "dataset compress bomb.parquet base.jsonl -o out",
    ] {
        refused(&desk, line, "bomb.parquet: what the rows unfold to is ");
    }
}

#[test]
fn unusual_bytes_come_back() {
    let desk = desk();
    let cases: [(&str, &[u8]); 9] = [
        ("bom.jsonl", b"\xEF\xBB\xBF{\"id\": 1}\n{\"id\": 2}\n"),
        ("bom.csv", b"\xEF\xBB\xBFid,text\r\n1,a\r\n"),
        ("crlf.csv", b"id,text\r\n1,a\r\n2,b\r\n"),
        ("crlf.jsonl", b"{\"id\": 1}\r\n\r\n{\"id\": 2}\r\n"),
        (
            "quoted.csv",
            b"id,text\n1,\"two\nlines, \"\"quoted\"\"\"\n2,\"needless\"\n",
        ),
        ("no_end.jsonl", b"{\"id\": 1}\n{\"id\": 2}"),
        ("no_end.csv", b"id,text\n1,a"),
        (
            "invalid.jsonl",
            b"{\"text\": \"\xff\xfe \xc3\"}\n{\"text\": \"\\ud800\"}\n",
        ),
        ("invalid.csv", b"id,text\n1,\xff\xfe\n"),
    ];
    for (name, bytes) in cases {
        desk.put(name, bytes);
        for (base, derivative) in [("base.jsonl", name), (name, name)] {
            let line = format!("dataset compress {base} {derivative} -o out --force --json");
            let made = desk.run(&line.split(' ').collect::<Vec<_>>());
            assert_eq!(made.code, Some(0), "{name}: {}{}", made.stdout, made.stderr);
            assert_eq!(made.json()["byte_exact"], true);
            let line = format!("dataset reconstruct {base} out -o again --force");
            let back = desk.run(&line.split(' ').collect::<Vec<_>>());
            assert_eq!(back.code, Some(0), "{name}: {}", back.stderr);
            assert_eq!(fs::read(desk.path("again")).unwrap(), bytes, "{name}");
        }
    }
}

/// Thirty megabytes of rows, and the same backwards with a few words changed.
fn large_pair(desk: &Desk) {
    let rows: Vec<String> = (0..200_000u64)
        .map(|n| {
            let words: Vec<String> = (0..16)
                .map(|k| {
                    format!(
                        "w{}",
                        (n * 16 + k).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44
                    )
                })
                .collect();
            format!("{{\"id\": {n}, \"text\": \"{}\"}}\n", words.join(" "))
        })
        .collect();
    desk.put("large.jsonl", rows.concat().as_bytes());
    let changed: String = rows
        .iter()
        .rev()
        .map(|row| row.replace("w77", "x"))
        .collect();
    desk.put("changed.jsonl", changed.as_bytes());
}

#[test]
fn interrupted_runs_leave_nothing() {
    let desk = desk();
    large_pair(&desk);
    let made = desk.run(&[
        "dataset",
        "compress",
        "large.jsonl",
        "changed.jsonl",
        "-o",
        "delta",
    ]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let before = desk.list();
    for (args, within) in [
        (
            ["compress", "large.jsonl", "changed.jsonl", "-o", "out"],
            "out",
        ),
        (["reconstruct", "large.jsonl", "delta", "-o", "out"], ""),
    ] {
        for signal in ["-INT", "-TERM"] {
            let all: Vec<&str> = ["dataset"].iter().chain(&args).copied().collect();
            let mut child = desk.command(SPARSE, &all).spawn().unwrap();
            let started = Instant::now();
            let begun = || {
                fs::read_dir(desk.path(within)).is_ok_and(|entries| {
                    entries
                        .flatten()
                        .any(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
                })
            };
            while !begun() {
                assert!(started.elapsed() < Duration::from_secs(60));
                assert!(child.try_wait().unwrap().is_none(), "ended before it began");
                std::thread::sleep(Duration::from_millis(1));
            }
            let pid = child.id().to_string();
            assert!(
                Command::new("kill")
                    .args([signal, &pid])
                    .status()
                    .unwrap()
                    .success()
            );
            let run = Run::of(child.wait_with_output().unwrap());
            assert_eq!(run.code, Some(130), "{signal} {args:?}: {}", run.stderr);
            assert_eq!(run.stderr, "error: interrupted\n");
            assert_eq!(desk.list(), before);
        }
    }
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let desk = desk();
    large_pair(&desk);
    let compress = "dataset compress large.jsonl changed.jsonl -o";
    let made = desk.run(&format!("{compress} delta").split(' ').collect::<Vec<_>>());
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let delta = fs::read(desk.path("delta/dataset.delta")).unwrap();
    let before = desk.list();
    for line in [
        format!("{compress} out"),
        format!("{compress} delta --force"),
        "dataset reconstruct large.jsonl delta -o out".to_owned(),
    ] {
        // Files may grow to 8 kB only: what a full disk does to a write, without one.
        let script = format!("trap '' 25; ulimit -f 16; exec {SPARSE} {line}");
        let run = Run::of(desk.command("sh", &["-c", &script]).output().unwrap());
        assert_eq!(run.code, Some(2), "{line}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
        assert!(run.stderr.contains("File too large"), "{}", run.stderr);
        assert_eq!(desk.list(), before, "{line}");
    }
    assert_eq!(fs::read(desk.path("delta/dataset.delta")).unwrap(), delta);
}
