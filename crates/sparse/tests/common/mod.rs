//! Runs the command in a folder of its own, next to the repository's base and a fine-tune of it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with `base`, `fine` and whatever a test puts there; commands run in it.
pub struct Desk {
    pub dir: TempDir,
}

/// What a run left.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Desk {
    pub fn new() -> Desk {
        let desk = Desk {
            dir: tempfile::tempdir().unwrap(),
        };
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/base");
        copy(&examples, &desk.path("base"));
        copy(&examples, &desk.path("fine"));
        // One step up for about a third of the words: a light fine-tune.
        let weights = desk.path("fine/model.safetensors");
        let mut bytes = fs::read(&weights).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut state = 1u32;
        for word in bytes[8 + header..].chunks_exact_mut(2) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 30 == 0 {
                word[0] ^= 1;
            }
        }
        fs::write(weights, bytes).unwrap();
        fs::write(desk.path("fine/README.md"), "A fine-tune.\n").unwrap();
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A command in this folder that reaches neither the network nor the user's cache.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("HF_HOME", self.path("home/hf"))
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        let output = self.command(env!("CARGO_BIN_EXE_sparse"), args).output();
        Run::of(output.unwrap())
    }

    /// Runs a command line and writes down what it did, without what differs from run to run.
    pub fn show(&self, line: &str) -> String {
        let args: Vec<&str> = line.split(' ').filter(|arg| !arg.is_empty()).collect();
        let run = self.run(&args);
        let (code, here) = (run.code.unwrap(), self.dir.path().to_str().unwrap());
        let mut text = format!("$ sparse {line}\nexit {code}\n");
        for (name, out) in [("stdout", &run.stdout), ("stderr", &run.stderr)] {
            assert!(!out.contains("panicked"), "{out}");
            let out = out.replace(here, "[DIR]");
            let json = args.contains(&"--json") && name == "stdout";
            let out = if json {
                format!("{:#}\n", steady_json(serde_json::from_str(&out).unwrap()))
            } else if !out.contains("Usage:") {
                narrow(&out);
                out.lines().map(|line| steady(line) + "\n").collect()
            } else {
                narrow(&out);
                out.replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
            };
            if !out.is_empty() {
                text.push_str(&format!("--- {name}\n{out}"));
            }
        }
        text
    }

    /// Everything in the folder, hidden files too.
    pub fn list(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn same(&self, one: &str, other: &str) -> bool {
        let files = |name: &str| {
            let mut files: Vec<_> = fs::read_dir(self.path(name))
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
                .collect();
            files.sort();
            files
        };
        files(one) == files(other)
    }
}

impl Run {
    pub fn of(output: std::process::Output) -> Run {
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// No line of tables and help is wider than a terminal; messages with paths wrap as they may.
fn narrow(text: &str) {
    for line in text.lines() {
        let free = ["error:", "hint:", "warning:", "problem:"];
        let width = line.chars().count();
        assert!(
            width <= 80 || free.iter().any(|start| line.starts_with(start)),
            "{width} columns: {line}"
        );
    }
}

/// A line without sizes, times, ratios and digests, and with single spaces.
fn steady(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let number = |word: &str| {
        let digits = word.replace([',', '.'], "");
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let word = |(at, &word): (usize, &&str)| {
        let next = words
            .get(at + 1)
            .map_or("", |next| next.trim_end_matches(','));
        if number(word) && ["B", "kB", "MB"].contains(&next) {
            return "[SIZE]".to_owned();
        }
        if ["B", "kB", "MB"].contains(&word.trim_end_matches(',')) {
            return word.replace(['k', 'M'], "");
        }
        if number(word) && ["ms", "s", "min"].contains(&next) {
            return "[TIME]".to_owned();
        }
        if ["ms", "s", "min"].contains(&word) {
            return "s".to_owned();
        }
        for unit in ["x", "%", "%,"] {
            if word.strip_suffix(unit).is_some_and(number) {
                return format!("[N]{unit}");
            }
        }
        if word.len() >= 32 && word.bytes().all(|b| b.is_ascii_hexdigit()) {
            return "[DIGEST]".to_owned();
        }
        word.replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
    };
    if line.starts_with("stored as") {
        return "stored as [MODES]".to_owned();
    }
    let words: Vec<String> = words.iter().enumerate().map(word).collect();
    words.join(" ")
}

/// JSON without what differs from run to run, long lists cut short.
fn steady_json(value: Value) -> Value {
    const MEASURED: [&str; 13] = [
        "delta_bytes",
        "ratio",
        "seconds",
        "peak_memory_bytes",
        "estimated_delta_bytes",
        "estimated_ratio",
        "unchanged_fraction",
        "sampled_parameters",
        "stored_bytes",
        "digest",
        "sha256",
        "creator",
        "modes",
    ];
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(key, value)| {
                    let kind = match &value {
                        Value::Number(_) => "[number]",
                        Value::String(_) => "[text]",
                        _ => "[object]",
                    };
                    if MEASURED.contains(&key.as_str()) {
                        return (key, kind.into());
                    }
                    (key, steady_json(value))
                })
                .map(|(key, value)| match (&value, key.as_str()) {
                    // Of a tensor: as many as the codec needs.
                    (Value::Number(_), "bytes") => (key, "[number]".into()),
                    _ => (key, value),
                })
                .collect(),
        ),
        Value::Array(values) => {
            let count = values.len();
            let mut kept: Vec<Value> = values.into_iter().take(2).map(steady_json).collect();
            if count > 2 && !kept[0].is_number() {
                kept.push(format!("[{} more]", count - 2).into());
            }
            Value::Array(kept)
        }
        value => value,
    }
}
