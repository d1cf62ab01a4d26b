//! A GGUF file: refused, or every tensor read as numbers and as codes.
#![no_main]

use std::fs;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sparse_quant::gguf::{GgufFile, GgufSource};
use sparse_quant::method::ggml::codes;
use tempfile::TempDir;

static FOLDER: OnceLock<TempDir> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let path = folder.path().join("model.gguf");
    fs::write(&path, input).expect("room for a file");
    let _ = GgufSource::open(&path, sparse_engine::Activations::Int8);
    let Ok(file) = GgufFile::open(&path) else {
        return;
    };
    for tensor in file.tensors() {
        let Ok((_, bytes)) = file.bytes(&tensor.name) else {
            continue;
        };
        assert!(bytes.len() <= input.len());
        if let Ok(weights) = file.weights(&tensor.name) {
            assert_eq!(weights.data().len(), tensor.rows * tensor.cols);
        }
        if let Some(codes) = codes(&bytes, tensor.kind) {
            assert_eq!(codes.codes.len(), tensor.rows * tensor.cols);
        }
    }
});
