//! Any bytes as an artifact: an error or an answer, never a panic. The
//! checksum is made right, so that the parsers behind it are reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

const BASE: &str = "{\"a\": \"one text\", \"b\": 1}\n{\"a\": \"two texts\", \"b\": 2}\n";

#[path = "../src/panics.rs"]
mod panics;

fuzz_target!(init: panics::let_readers_panic(), |data: &[u8]| {
    let folder = std::env::temp_dir().join(format!("sparse-fuzz-artifact-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let (base, delta) = (folder.join("base.jsonl"), folder.join("dataset.delta"));
    std::fs::write(&base, BASE).expect("a temporary file");
    // Without further feature bits, and with that of descriptions told by those before.
    for (required, more) in [(0, &[][..]), (128, &[2][..])] {
        let mut bytes = b"SPARSEDS\x01".to_vec();
        bytes.extend_from_slice(&[required, 0]);
        bytes.extend_from_slice(&Sha256::digest(BASE));
        bytes.extend_from_slice(more);
        bytes.extend_from_slice(data);
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest[..8]);
        std::fs::write(&delta, &bytes).expect("a temporary file");
        let _ = sparse_dataset::info(&delta);
        let _ = sparse_dataset::verify(&delta, Some(&base), 2, &());
    }
});
