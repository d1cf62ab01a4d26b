//! A `*.safetensors.index.json` beside two shards: refused, or every tensor is found.
#![no_main]

use std::fs;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sparse_checkpoint::Checkpoint;
use tempfile::TempDir;

static FOLDER: OnceLock<TempDir> = OnceLock::new();

/// A shard with tensors of one byte.
fn shard(names: [&str; 2]) -> Vec<u8> {
    let [a, b] = names;
    let text = format!(
        r#"{{"{a}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}},"{b}":{{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}}}"#
    );
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &[1, 2]].concat()
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, tensors) in [("1", ["a", "both"]), ("2", ["b", "both"])] {
        let path = folder.path().join(format!("{name}.safetensors"));
        fs::write(path, shard(tensors)).expect("room for a shard");
    }
    folder
}

fuzz_target!(|input: &[u8]| {
    let folder = FOLDER.get_or_init(folder).path();
    fs::write(folder.join("x.safetensors.index.json"), input).expect("room for an index");
    if let Ok(checkpoint) = Checkpoint::open(folder) {
        for name in ["a", "b", "both"] {
            let tensor = checkpoint.tensor(name).expect("a shard has it");
            assert_eq!(tensor.name(), name);
        }
    }
});
