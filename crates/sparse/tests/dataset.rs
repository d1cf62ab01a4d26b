//! `sparse dataset` from the outside: answers, exit codes, messages.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Desk, Run};
use serde_json::Value;

/// A base of JSON lines and a derivative of them as CSV: a column more, rows moved, edited, gone
/// and new.
fn desk() -> Desk {
    let desk = Desk::new();
    let row = |n: usize| {
        let text = format!("the {n}th row says {} and little else", n * 7919 % 1000);
        (format!("{n:03}"), text)
    };
    let mut base = String::new();
    for (id, text) in (0..200).map(row) {
        base.push_str(&format!("{{\"id\": \"{id}\", \"text\": \"{text}\"}}\n"));
    }
    let mut derivative = String::from("id,text,source\n");
    for (id, text) in (0..200).rev().filter(|n| n % 5 != 0).map(row) {
        let text = if id == "042" {
            text.replace("little", "nothing")
        } else {
            text
        };
        derivative.push_str(&format!("{id},{text},made\n"));
    }
    derivative.push_str("999,\"a new row, with a comma\",made\n");
    desk.put("base.jsonl", base.as_bytes());
    desk.put("derived.csv", derivative.as_bytes());
    desk.put(
        "other.jsonl",
        b"{\"id\": \"1\", \"text\": \"another base\"}\n",
    );
    desk
}

fn run(desk: &Desk, line: &str) -> Run {
    let run = desk.run(&line.split(' ').collect::<Vec<_>>());
    assert!(!run.stderr.contains("panicked"), "{line}: {}", run.stderr);
    run
}

fn done(desk: &Desk, line: &str) -> Run {
    let run = run(desk, line);
    assert_eq!(run.code, Some(0), "{line}: {}{}", run.stdout, run.stderr);
    assert_eq!(run.stderr, "", "{line}");
    if !line.contains("--json") {
        for text in run.stdout.lines() {
            assert!(text.chars().count() <= 80, "{line}: {text}");
        }
    }
    run
}

fn has(value: &Value, keys: &str) {
    for key in keys.split(' ') {
        assert!(value.get(key).is_some(), "no {key} in {value:#}");
    }
}

const COMPRESS: &str = "dataset compress base.jsonl derived.csv -o delta";

#[test]
fn a_delta_and_back() {
    let desk = desk();
    let made = done(&desk, &format!("{COMPRESS} --json")).json();
    has(
        &made,
        "derivative_bytes delta_bytes savings_pct byte_exact splits seconds",
    );
    let stored = fs::metadata(desk.path("delta/dataset.delta"))
        .unwrap()
        .len();
    assert_eq!(made["delta_bytes"], stored);
    assert_eq!(made["byte_exact"], true);
    let split = &made["splits"][0];
    has(
        split,
        "rows rows_referenced rows_edited rows_new columns_added columns_dropped",
    );
    assert_eq!(
        (&split["rows"], &split["rows_new"]),
        (&161.into(), &1.into())
    );
    assert_eq!(split["columns_added"], serde_json::json!(["source"]));

    let rebuild = "dataset reconstruct base.jsonl delta -o again.csv";
    let back = done(&desk, &format!("{rebuild} --json")).json();
    has(&back, "files bytes verified byte_exact seconds");
    assert_eq!(
        fs::read(desk.path("again.csv")).unwrap(),
        fs::read(desk.path("derived.csv")).unwrap()
    );

    let ok = done(&desk, "dataset verify delta --base base.jsonl --json").json();
    assert_eq!(ok, serde_json::json!({"ok": true, "problems": []}));
    let info = done(&desk, "dataset info delta --json").json();
    has(&info, "format_version base files ratio");
    has(&info["base"], "digest");
    let guess = done(&desk, "dataset estimate base.jsonl derived.csv --json").json();
    has(
        &guess,
        "estimated_delta_bytes estimated_ratio unchanged_fraction sampled_rows seconds",
    );
}

#[test]
fn text_for_people_fits_a_terminal() {
    let desk = desk();
    let made = done(&desk, COMPRESS);
    assert!(made.stdout.contains("byte for byte"), "{}", made.stdout);
    for line in [
        "dataset reconstruct base.jsonl delta -o again.csv",
        "dataset verify delta",
        "dataset verify delta --base base.jsonl",
        "dataset info delta",
        "dataset estimate base.jsonl derived.csv --effort fast",
        "dataset --help",
        "dataset compress --help",
        "dataset info --help",
    ] {
        done(&desk, line);
    }
    let info = done(&desk, "dataset info delta --base base.jsonl");
    assert!(info.stdout.contains("example, new row"), "{}", info.stdout);
    assert!(
        info.stdout.contains("columns added: source"),
        "{}",
        info.stdout
    );
}

#[test]
fn wrong_bases_and_damage() {
    let desk = desk();
    done(&desk, COMPRESS);
    let before = desk.list();
    let wrong = run(&desk, "dataset reconstruct other.jsonl delta -o again.csv");
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.starts_with("error: other.jsonl: not the base"),
        "{}",
        wrong.stderr
    );
    assert!(wrong.stderr.contains("\nhint: "), "{}", wrong.stderr);
    let wrong = run(
        &desk,
        "dataset reconstruct other.jsonl delta -o again.csv --json",
    );
    assert_eq!(wrong.code, Some(2));
    has(&wrong.json(), "error hint");
    assert_eq!(
        run(&desk, "dataset verify delta --base other.jsonl").code,
        Some(1)
    );

    let whole = fs::read(desk.path("delta/dataset.delta")).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (damaged, name) in [
        (&flipped[..], "flipped"),
        (&whole[..whole.len() / 2], "cut"),
    ] {
        desk.put("delta/dataset.delta", damaged);
        let found = run(&desk, "dataset verify delta");
        assert_eq!(found.code, Some(1), "{name}: {}", found.stderr);
        assert!(
            found.stdout.starts_with("problem: "),
            "{name}: {}",
            found.stdout
        );
        let found = run(&desk, "dataset verify delta --json");
        assert_eq!((found.code, &found.json()["ok"]), (Some(1), &false.into()));
        let rebuilt = run(&desk, "dataset reconstruct base.jsonl delta -o again.csv");
        assert_eq!(rebuilt.code, Some(2), "{name}");
    }
    assert_eq!(desk.list(), before);
}

#[test]
fn outputs_that_exist_stay_without_force() {
    let desk = desk();
    done(&desk, COMPRESS);
    let again = run(&desk, COMPRESS);
    assert_eq!(again.code, Some(2));
    assert_eq!(
        again.stderr,
        "error: delta exists already\nhint: pass --force to replace it\n"
    );
    done(&desk, &format!("{COMPRESS} --force"));

    let rebuild = "dataset reconstruct base.jsonl delta -o derived.csv";
    assert_eq!(run(&desk, rebuild).code, Some(2));
    done(&desk, &format!("{rebuild} --force"));
    // Into a folder: the file's name is the original's, and that exists.
    assert_eq!(
        run(&desk, "dataset reconstruct base.jsonl delta -o .").code,
        Some(2)
    );
    // Never over what it is rebuilt from, nor among it.
    let base = fs::read(desk.path("base.jsonl")).unwrap();
    for over in ["base.jsonl", "delta/dataset.delta"] {
        let line = format!("dataset reconstruct base.jsonl delta -o {over} --force");
        let over = run(&desk, &line);
        assert_eq!(over.code, Some(2));
        assert!(over.stderr.contains("would change"), "{}", over.stderr);
    }
    assert_eq!(fs::read(desk.path("base.jsonl")).unwrap(), base);
    desk.put("many/base.jsonl", &base);
    done(&desk, "dataset compress many derived.csv -o delta2");
    let among = run(
        &desk,
        "dataset reconstruct many delta2 -o many/new/derived.csv",
    );
    assert!(among.stderr.contains("would change"), "{}", among.stderr);
    assert_eq!(fs::read_dir(desk.path("many")).unwrap().count(), 1);
}

#[test]
fn bad_input_is_named_and_leaves_nothing() {
    let desk = desk();
    desk.put("broken.jsonl", b"{\"a\": 1}\n{\"a\": 2\n");
    desk.put("broken.parquet", b"PAR1 nothing of the kind PAR1");
    let before = desk.list();
    for (line, part) in [
        ("dataset compress base.jsonl broken.jsonl -o out", "line 2"),
        (
            "dataset compress base.jsonl broken.parquet -o out",
            "broken.parquet",
        ),
        (
            "dataset compress base.jsonl missing.csv -o out",
            "missing.csv",
        ),
        (
            "dataset compress base.jsonl derived.csv -o out --key nothing",
            "no column",
        ),
        ("dataset info base.jsonl", "base.jsonl"),
        ("dataset verify missing", "missing"),
    ] {
        let refused = run(&desk, line);
        assert_eq!(refused.code, Some(2), "{line}: {}", refused.stderr);
        assert!(
            refused.stderr.starts_with("error: "),
            "{line}: {}",
            refused.stderr
        );
        assert!(refused.stderr.contains(part), "{line}: {}", refused.stderr);
        assert_eq!(desk.list(), before, "{line}");
    }
}
