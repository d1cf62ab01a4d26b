//! Signals, full disks and readers that go away: nothing half-written is left.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Desk, Run};
use sparse::checkpoint::{Dtype, Error, TensorSpec, WriteOptions, write_shards};

const SPARSE: &str = env!("CARGO_BIN_EXE_sparse");

/// Two checkpoints of about 100 MB, long enough to be interrupted.
fn large_pair(desk: &Desk) {
    let specs: Vec<TensorSpec> = (0..12)
        .map(|n| TensorSpec::new(format!("layer.{n}"), Dtype::BF16, [2048, 2048]))
        .collect();
    for (name, salt) in [("large", 0), ("larger", 1)] {
        fs::create_dir(desk.path(name)).unwrap();
        let mut state = 1u64;
        let mut row = vec![0; 2048 * 2];
        let options = WriteOptions::default();
        write_shards(&desk.path(name), &specs, &options, |_, out| {
            for _ in 0..2048 {
                for word in row.chunks_exact_mut(2) {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(salt | 1);
                    let bits = (state >> 40) as u16;
                    let word_bits = 0x3c00 | bits & 0x81ff;
                    word.copy_from_slice(&(word_bits ^ (salt as u16 & bits >> 9)).to_le_bytes());
                }
                out.write_all(&row)?;
            }
            Ok::<(), Error>(())
        })
        .unwrap();
    }
}

const COMPRESS: &str = "delta compress large larger -o out --threads 1";

/// Starts `line`, and sends `signal` once there is something half-written.
fn stop_with(desk: &Desk, line: &str, signal: &str) -> Run {
    let args: Vec<&str> = line.split(' ').collect();
    let mut child = desk.command(SPARSE, &args).spawn().unwrap();
    let started = Instant::now();
    while !desk.list().iter().any(|name| name.contains(".tmp")) {
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!(child.try_wait().unwrap().is_none(), "ended before it began");
        std::thread::sleep(Duration::from_millis(2));
    }
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &pid])
            .status()
            .unwrap()
            .success()
    );
    Run::of(child.wait_with_output().unwrap())
}

#[test]
fn interrupted_and_killed_runs_leave_no_output() {
    let desk = Desk::new();
    large_pair(&desk);
    for signal in ["-INT", "-TERM"] {
        let run = stop_with(&desk, COMPRESS, signal);
        assert_eq!(run.code, Some(130), "{signal}");
        assert_eq!(run.stderr, "error: interrupted\n");
        assert_eq!(desk.list(), ["base", "fine", "large", "larger"]);
    }
    // Nobody can clean up after SIGKILL, but the output is not there, and the next run works.
    let run = stop_with(&desk, COMPRESS, "-KILL");
    assert_eq!(run.code, None);
    assert!(!desk.path("out").exists());
    let run = desk.run(&["delta", "compress", "base", "fine", "-o", "out"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let run = desk.run(&["delta", "verify", "out", "--base", "base"]);
    assert_eq!(run.code, Some(0), "{}", run.stdout);
}

#[test]
fn an_interrupted_quantization_leaves_no_output() {
    let desk = Desk::new();
    let before = desk.list();
    let line = "quantize base --preset gptq_quality --samples 1024 -o out --threads 1";
    let run = stop_with(&desk, line, "-INT");
    assert_eq!(run.code, Some(130), "{}", run.stderr);
    assert_eq!(run.stderr, "error: interrupted\n");
    assert_eq!(desk.list(), before);
}

/// Files may grow to 50 kB only: what a full disk does to a write, without one.
fn with_little_room(desk: &Desk, line: &str) -> Run {
    let script = format!("trap '' 25; ulimit -f 100; exec {SPARSE} {line}");
    Run::of(desk.command("sh", &["-c", &script]).output().unwrap())
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let desk = Desk::new();
    let made = desk.run(&["delta", "compress", "base", "fine", "-o", "delta"]);
    assert_eq!(made.code, Some(0));
    let before = desk.list();
    for line in [
        "delta compress base fine -o out",
        "delta reconstruct base delta -o out",
        "delta reconstruct base delta -o out.safetensors --tensor transformer.wte.weight",
        "delta compress base fine -o delta --force",
        "quantize base --preset bnb_nf4 -o out",
        "quantize base --preset gguf_q8_0 -o out",
    ] {
        let run = with_little_room(&desk, line);
        assert_eq!(run.code, Some(2), "{line}: {}", run.stderr);
        let out = if line.contains("-o out") {
            "out"
        } else {
            "delta"
        };
        assert!(
            run.stderr.starts_with("error: cannot write"),
            "{}",
            run.stderr
        );
        assert!(run.stderr.contains(out), "{}", run.stderr);
        assert_eq!(desk.list(), before, "{line}");
        let json = with_little_room(&desk, &format!("{line} --json"));
        assert!(
            json.json()["error"]
                .as_str()
                .unwrap()
                .contains("cannot write")
        );
    }
    // The output that was to be replaced is still whole.
    assert_eq!(
        desk.run(&["delta", "verify", "delta", "--base", "base"])
            .code,
        Some(0)
    );
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let desk = Desk::new();
    let made = desk.run(&["delta", "compress", "base", "fine", "-o", "delta"]);
    assert_eq!(made.code, Some(0));
    for line in [
        "--help",
        "--version",
        "delta info delta",
        "delta info delta --json",
        "delta info x --json",
    ] {
        let script = format!("{{ {SPARSE} {line}; echo code $? >&2; }} | head -c 0");
        let run = Run::of(desk.command("sh", &["-c", &script]).output().unwrap());
        assert!(!run.stderr.contains("panicked"), "{line}: {}", run.stderr);
        let code = if line.contains(" x ") {
            ["code 2", "code 0"]
        } else {
            ["code 0", "code 0"]
        };
        assert!(
            code.iter().any(|code| run.stderr.contains(code)),
            "{line}: {}",
            run.stderr
        );
    }
    // Closed from the beginning, and full.
    for target in [">&-", "> /dev/full"] {
        let script = format!("{SPARSE} delta info delta {target}");
        let run = Run::of(desk.command("sh", &["-c", &script]).output().unwrap());
        assert!(!run.stderr.contains("panicked"), "{target}: {}", run.stderr);
    }
}

#[test]
fn an_unwritable_folder_is_told() {
    let desk = Desk::new();
    desk.put("file", b"1");
    let run = desk.run(&["delta", "compress", "base", "fine", "-o", "file/out"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("cannot create"), "{}", run.stderr);
    let mut quiet = desk.command(SPARSE, &["delta", "compress", "base", "fine", "-o", "out"]);
    let run = Run::of(
        quiet
            .arg("--quiet")
            .stdout(Stdio::piped())
            .output()
            .unwrap(),
    );
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
}
