//! Reading the golden files that `conformance/engine_golden.py` made.

use std::path::{Path, PathBuf};

use sparse_checkpoint::{Checkpoint, Shard};
use sparse_engine::{Model, ModelConfig, Plain};

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub fn load(dir: &Path) -> Model {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let config = ModelConfig::read(&checkpoint).unwrap();
    Model::load(config, &Plain::open(&checkpoint).unwrap(), 2, &|_, _| ()).unwrap()
}

pub fn tokens(shard: &Shard, name: &str) -> Vec<u32> {
    let bytes = shard.tensor(name).unwrap().bytes().unwrap();
    let ids = bytes.as_chunks().0.iter().map(|&id| i64::from_le_bytes(id));
    ids.map(|id| u32::try_from(id).unwrap()).collect()
}

pub fn floats(shard: &Shard, name: &str) -> Vec<f32> {
    let bytes = shard.tensor(name).unwrap().bytes().unwrap();
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&value| f32::from_le_bytes(value))
        .collect()
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |most, (a, b)| {
        assert!(a.is_finite());
        most.max((a - b).abs())
    })
}
