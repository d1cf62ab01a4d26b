//! Signals, full disks and readers that go away: nothing half-written is left.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../sparse-checkpoint/tests/hub/server.rs"]
mod server;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Desk, Run};
use server::{Hub, Served, Server};
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
    fs::create_dir(desk.path("damaged")).unwrap();
    let mut bytes = fs::read(desk.path("delta/delta.safetensors")).unwrap();
    bytes[300] ^= 4;
    desk.put("damaged/delta.safetensors", &bytes);
    // Nobody reads the answer, but the exit code is the answer too.
    for (line, code) in [
        ("--help", 0),
        ("--version", 0),
        ("delta info delta", 0),
        ("delta info delta --json", 0),
        ("delta verify delta", 0),
        ("delta verify damaged", 1),
        ("delta verify damaged --json", 1),
        ("delta info x", 2),
        ("delta info x --json", 2),
        ("delta info --json", 2),
    ] {
        let script =
            format!("{{ sleep 0.2; {SPARSE} {line}; echo code $? >&2; }} | head -c 0 >/dev/null");
        let run = Run::of(desk.command("sh", &["-c", &script]).output().unwrap());
        assert!(!run.stderr.contains("panicked"), "{line}: {}", run.stderr);
        let expected = format!("code {code}\n");
        assert!(run.stderr.ends_with(&expected), "{line}: {}", run.stderr);
    }
    // Closed from the beginning, and full.
    for target in [">&-", "> /dev/full"] {
        let script = format!("{SPARSE} delta info delta {target}");
        let run = Run::of(desk.command("sh", &["-c", &script]).output().unwrap());
        assert!(!run.stderr.contains("panicked"), "{target}: {}", run.stderr);
    }
}

/// Runs a line that must not wait for anything.
fn run_at_once(desk: &Desk, line: &str) -> Run {
    let args: Vec<&str> = line.split(' ').collect();
    let mut child = desk.command(SPARSE, &args).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("{line} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Run::of(child.wait_with_output().unwrap())
}

#[test]
fn a_named_pipe_is_no_file() {
    let desk = Desk::new();
    let pipes = [
        "pipe/delta.safetensors",
        "pipe/dataset.delta",
        "shards/model.safetensors",
        "index/model.safetensors.index.json",
        "rows.jsonl",
        "rows.parquet",
        "splits/train.csv",
        "gguf/model.gguf",
    ];
    for pipe in pipes {
        desk.put(&format!("{pipe}.x"), b"");
        let path = desk.path(pipe);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
    }
    desk.put("plain.jsonl", b"{\"a\":1}\n");
    fs::create_dir_all(desk.path("folder/delta.safetensors")).unwrap();
    for line in [
        "delta info pipe",
        "delta verify pipe",
        "delta verify pipe --base base",
        "delta reconstruct base pipe -o out",
        "delta reconstruct base pipe -o out --tensor transformer.ln_f.weight",
        "delta info folder",
        "delta compress base shards -o out",
        "delta compress index fine -o out",
        "delta estimate base index",
        "quantize shards --preset bnb_nf4 -o out",
        "dequantize gguf -o out",
        "dataset info pipe",
        "dataset verify pipe/dataset.delta",
        "dataset compress rows.jsonl plain.jsonl -o out",
        "dataset compress plain.jsonl rows.jsonl -o out",
        "dataset compress plain.jsonl rows.parquet -o out",
        "dataset estimate rows.parquet plain.jsonl",
        "dataset compress splits plain.jsonl -o out",
    ] {
        let run = run_at_once(&desk, line);
        assert_eq!(run.code, Some(2), "{line}: {}{}", run.stdout, run.stderr);
        assert!(!desk.path("out").exists(), "{line}");
    }
}

#[test]
fn a_delta_may_be_a_link_as_in_a_hub_cache() {
    let desk = Desk::new();
    let made = desk.run(&["delta", "compress", "base", "fine", "-o", "delta"]);
    assert_eq!(made.code, Some(0));
    fs::create_dir_all(desk.path("snapshot")).unwrap();
    fs::rename(desk.path("delta/delta.safetensors"), desk.path("blob")).unwrap();
    let link = desk.path("snapshot/delta.safetensors");
    std::os::unix::fs::symlink("../blob", &link).unwrap();
    for line in [
        "delta verify snapshot --base base",
        "delta reconstruct base snapshot -o back",
    ] {
        let run = desk.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, Some(0), "{line}: {}", run.stderr);
    }
    assert!(desk.same("fine", "back"));
}

#[test]
fn an_output_below_a_link_to_an_input_is_refused() {
    let desk = Desk::new();
    std::os::unix::fs::symlink("base", desk.path("link")).unwrap();
    for line in [
        "delta compress base fine -o link/delta",
        "delta compress base fine -o link/deep/delta",
        "quantize base --preset bnb_nf4 -o link/out",
    ] {
        let run = desk.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(run.code, Some(2), "{line}");
        assert!(run.stderr.contains("overlaps"), "{line}: {}", run.stderr);
    }
    assert_eq!(desk.list(), ["base", "fine", "link"]);
    assert!(!desk.path("base/delta").exists() && !desk.path("base/deep").exists());
}

#[test]
fn one_tensor_is_written_as_folders_are() {
    let desk = Desk::new();
    let made = desk.run(&["delta", "compress", "base", "fine", "-o", "delta"]);
    assert_eq!(made.code, Some(0));
    let tensor = ["--tensor", "transformer.wte.weight"];
    let reconstruct = |output: &str, more: &[&str]| {
        let start = ["delta", "reconstruct", "base", "delta", "-o", output];
        desk.run(&[&start[..], &tensor, more].concat())
    };
    // What a killed run left of this output goes, what it left of another stays.
    let (left, other) = ("new/.one.sparse-999999999-0.tmp", "new/.two.sparse-1-0.tmp");
    desk.put(left, b"half");
    desk.put(other, b"half");
    for output in ["new/one", "no/such/folder/one"] {
        let run = reconstruct(output, &[]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(desk.path(output).is_file());
    }
    assert!(!desk.path(left).exists() && desk.path(other).exists());
    let run = reconstruct("base", &["--force"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("overlaps"), "{}", run.stderr);
    let run = reconstruct("no/such", &["--force"]);
    assert_eq!(run.code, Some(2));
    assert_eq!(
        run.stderr,
        "error: no/such is a folder, a file is to be written\nhint: choose the name of a file with -o\n"
    );
}

#[test]
fn an_interrupted_download_ends_at_once_and_goes_on_later() {
    let desk = Desk::new();
    let mut hub = Hub::default();
    for name in ["config.json", "model.safetensors"] {
        let bytes = fs::read(desk.path("fine").join(name)).unwrap();
        let served = Served {
            etag: format!("etag-of-{}", bytes.len()),
            bytes,
            ..Served::default()
        };
        hub.files.insert(name.to_owned(), served);
    }
    let server = Server::start(hub);
    let stall = |stalls: bool| {
        let mut hub = server.hub.lock().unwrap();
        let weights = hub.files.get_mut("model.safetensors").unwrap();
        (weights.cut_after, weights.cuts) = (Some(20_000), usize::from(stalls));
        weights.stalls = stalls;
    };
    let command = || {
        let args = ["delta", "compress", "base", "o/n", "-o", "out"];
        let mut command = desk.command(SPARSE, &args);
        command
            .env("HF_HUB_OFFLINE", "0")
            .env("HF_ENDPOINT", &server.url);
        command
    };
    let blobs = desk.path("home/hf/hub/models--o--n/blobs");
    let incomplete = || {
        let entries = fs::read_dir(&blobs).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path().extension().is_some_and(|e| e == "incomplete"))
            .find_map(|entry| Some(entry.metadata().ok()?.len()))
    };
    // Each run adds a piece before the server stalls.
    for (signal, arrived) in [("-INT", 20_000), ("-TERM", 40_000)] {
        stall(true);
        let mut child = command().spawn().unwrap();
        let started = Instant::now();
        while incomplete().is_none_or(|len| len < arrived) {
            assert!(started.elapsed() < Duration::from_secs(20));
            assert!(child.try_wait().unwrap().is_none(), "ended before it began");
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = Instant::now();
        let pid = child.id().to_string();
        let killed = Command::new("kill").args([signal, &pid]).status();
        assert!(killed.unwrap().success());
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!(run.code, Some(130), "{signal}: {}", run.stderr);
        assert_eq!(run.stderr, "error: interrupted\n");
        assert!(sent.elapsed() < Duration::from_secs(10), "{signal}");
        assert!(incomplete().is_some(), "kept for the next run");
    }
    stall(false);
    let run = Run::of(command().output().unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let gets = server.requests("GET");
    assert!(gets.last().unwrap().contains("bytes="), "{gets:?}");
    assert_eq!(incomplete(), None);
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
