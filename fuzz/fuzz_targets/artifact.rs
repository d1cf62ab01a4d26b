//! A whole delta: an unpacked index and data, verified and rebuilt against a base.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use sparse_checkpoint::Checkpoint;
use sparse_fuzz::{Input, base};
use tempfile::TempDir;

static BASE: OnceLock<(TempDir, Checkpoint)> = OnceLock::new();
static FOLDER: OnceLock<TempDir> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let index = input.part();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let base = &BASE.get_or_init(base).1;
    sparse_delta::fuzzing::artifact(index, input.0, base, folder.path());
});
