//! What the tests share: a folder of their own, and the round trip.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sparse_dataset::{CompressReport, CompressSpec, Result};

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A folder that goes away with its test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let name = format!(
            "sparse-dataset-test-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// The names of everything inside.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Compresses, rebuilds and compares bytes.
pub fn round_trip(
    base: (&str, &[u8]),
    derivative: (&str, &[u8]),
    spec: &CompressSpec,
) -> CompressReport {
    let folder = Folder::new();
    let base = folder.write(&format!("base/{}", base.0), base.1);
    let original = folder.write(&format!("derivative/{}", derivative.0), derivative.1);
    let report =
        compress(&base, &original, &folder.0, spec).unwrap_or_else(|error| panic!("{error}"));
    let again = folder.0.join(derivative.0);
    sparse_dataset::reconstruct(&base, &folder.0, &again, 2, &())
        .unwrap_or_else(|error| panic!("{error}"));
    let again = fs::read(&again).unwrap();
    assert!(
        again == derivative.1,
        "rebuilt and original differ: {} and {}",
        String::from_utf8_lossy(&again),
        String::from_utf8_lossy(derivative.1),
    );
    report
}

pub fn compress(
    base: &Path,
    derivative: &Path,
    output: &Path,
    spec: &CompressSpec,
) -> Result<CompressReport> {
    let spec = CompressSpec {
        threads: 2,
        ..spec.clone()
    };
    sparse_dataset::compress(base, derivative, output, &spec, &())
}

/// Numbers in random order, and how many bytes that order takes.
pub fn shuffled(count: usize) -> (Vec<usize>, f64) {
    let mut rows: Vec<usize> = (0..count).collect();
    let mut state = 9u64;
    for index in (1..count).rev() {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        rows.swap(index, (state >> 33) as usize % (index + 1));
    }
    let bits: f64 = (1..=count).map(|n| (n as f64).log2()).sum();
    (rows, bits / 8.0)
}

/// Forty lines of the GSM8K test set.
pub fn gsm8k() -> String {
    include_str!("../data/gsm8k_40.jsonl").to_owned()
}
