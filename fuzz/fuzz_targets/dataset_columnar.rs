//! Any bytes as a Parquet or Arrow file: refused or rebuilt, never a panic that gets out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_dataset::CompressSpec;

#[path = "../src/panics.rs"]
mod panics;

fuzz_target!(init: panics::let_readers_panic(), |data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let folder = std::env::temp_dir().join(format!("sparse-fuzz-columnar-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let derivative = folder.join(if choice & 1 == 0 {
        "d.parquet"
    } else {
        "d.arrow"
    });
    std::fs::write(&derivative, data).expect("a temporary file");
    if sparse_dataset::compress(
        &derivative,
        &derivative,
        &folder,
        &CompressSpec::default(),
        &(),
    )
    .is_ok()
    {
        let again = folder.join("again");
        sparse_dataset::reconstruct(&derivative, &folder, &again, 2, &())
            .expect("what was compressed is rebuilt");
    }
});
