//! Deltas written by every released version stay readable.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use sparse_checkpoint::Checkpoint;
use sparse_delta::{Existing, ReconstructOptions, Silent, info, reconstruct, verify};
use tempfile::TempDir;

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn hex_digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// Rebuilds a delta of `examples/base`, which also verifies, and returns the folder it is in.
fn rebuilt(delta: &Path) -> (TempDir, PathBuf) {
    let base = Checkpoint::open(&examples().join("base")).unwrap();
    assert!(verify(delta, Some(&base), 2, &Silent).unwrap().is_empty());
    let scratch = tempfile::tempdir().unwrap();
    let output = scratch.path().join("finetune");
    let options = ReconstructOptions {
        threads: 2,
        existing: Existing::Keep,
    };
    reconstruct(&base, delta, &output, &options, &Silent).unwrap();
    (scratch, output)
}

/// `examples/finetune.delta` was written by 0.1.0, with all that format 1 has for a bf16
/// fine-tune: low-rank predictions, scales, copied files.
#[test]
fn format_1_rebuilds_the_recorded_files() {
    let delta = examples().join("finetune.delta");
    assert_eq!(info(&delta).unwrap().format_version, 1);
    let (_scratch, output) = rebuilt(&delta);
    let recorded = fs::read_to_string(examples().join("finetune.sha256")).unwrap();
    let mut files = 0;
    for line in recorded.lines() {
        let (digest, name) = line.split_once("  ").unwrap();
        let bytes = fs::read(output.join(name)).unwrap();
        assert_eq!(hex_digest(&bytes), digest, "{name}");
        files += 1;
    }
    assert_eq!(files, fs::read_dir(&output).unwrap().count());
}

/// `formats/1-ranked` was written with `--effort fastest`: rank codes, a required feature.
#[test]
fn rank_codes_rebuild_the_recorded_file() {
    let (_scratch, output) =
        rebuilt(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/formats/1-ranked"));
    let bytes = fs::read(output.join("model.safetensors")).unwrap();
    let recorded = "a89a40b05196fa69f54209664d2bc11e217c6f5c32a078f7499df6f4b85eb320";
    assert_eq!(hex_digest(&bytes), recorded);
}
