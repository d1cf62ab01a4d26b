//! The checkpoint that ships with the repository, and numbers to make another from.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use sparse_checkpoint::Checkpoint;

macro_rules! shipped {
    ($folder:literal: $($name:literal),*) => {
        [$(($name, include_bytes!(concat!("../../../../examples/", $folder, "/", $name)).as_slice())),*]
    };
}

/// The base, trained for this project from random weights.
static BASE: [(&str, &[u8]); 5] = shipped!("base": "config.json", "generation_config.json",
    "model.safetensors", "tokenizer.json", "tokenizer_config.json");

/// A fine-tune of it, as a delta.
static DELTA: [(&str, &[u8]); 1] = shipped!("finetune.delta": "delta.safetensors");

/// SHA-256 of each file of the fine-tune, as `sha256sum` prints them.
static RECORDED: &str = include_str!("../../../../examples/finetune.sha256");

fn write(dir: &Path, files: &[(&str, &[u8])]) -> anyhow::Result<()> {
    fs::create_dir(dir)?;
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes)?;
    }
    Ok(())
}

/// Writes the base to a new folder and opens it.
pub fn write_base(dir: &Path) -> anyhow::Result<Checkpoint> {
    write(dir, &BASE)?;
    Ok(Checkpoint::open(dir)?)
}

/// Writes the shipped delta to a new folder.
pub fn write_delta(dir: &Path) -> anyhow::Result<PathBuf> {
    write(dir, &DELTA)?;
    Ok(dir.to_owned())
}

/// Whether the folder holds just the recorded files with the recorded digests.
pub fn matches_recorded(dir: &Path) -> anyhow::Result<bool> {
    let mut recorded = 0;
    for line in RECORDED.lines() {
        let Some((digest, name)) = line.split_once("  ") else {
            continue;
        };
        recorded += 1;
        let found = Sha256::digest(fs::read(dir.join(name))?);
        let found: String = found.iter().map(|b| format!("{b:02x}")).collect();
        if found != digest {
            return Ok(false);
        }
    }
    Ok(recorded == fs::read_dir(dir)?.count())
}

/// Numbers of a normal distribution, the same on every run.
pub fn normal() -> impl FnMut() -> f32 {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    move || {
        // The sum of 12 uniform numbers, less its mean, has variance 1.
        (0..12)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u32 << 24) as f32
            })
            .sum::<f32>()
            - 6.0
    }
}
