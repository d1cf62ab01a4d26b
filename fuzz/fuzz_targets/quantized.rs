//! A quantized checkpoint: its configuration and its tensors; refused, or every layer read back.
#![no_main]

use std::fs;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sparse_checkpoint::Checkpoint;
use sparse_engine::Activations;
use sparse_fuzz::Input;
use sparse_quant::{Quantized, linear};
use tempfile::TempDir;

static FOLDER: OnceLock<TempDir> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let mut input = Input(input);
    let (config, map) = (input.part(), input.part());
    let put = |name: &str, bytes: &[u8]| {
        fs::write(folder.path().join(name), bytes).expect("room for a file");
    };
    put("config.json", config);
    put("model.safetensors", input.0);
    let quanto = folder.path().join("quanto_qmap.json");
    if map.is_empty() {
        let _ = fs::remove_file(quanto);
    } else {
        put("quanto_qmap.json", map);
    }
    let Ok(checkpoint) = Checkpoint::open(folder.path()) else {
        return;
    };
    let Ok(quantized) = Quantized::open(&checkpoint) else {
        return;
    };
    for layer in quantized.layers() {
        let Ok(packed) = quantized.packed(layer) else {
            continue;
        };
        let (outputs, inputs) = packed.shape();
        let weights = packed.dequantize();
        assert_eq!((weights.rows(), weights.cols()), (outputs, inputs));
        let linear = linear(packed, Activations::Int8);
        assert_eq!((linear.outputs(), linear.inputs()), (outputs, inputs));
    }
});
