//! A chunk of bytes that are not modelled, and coding the input as one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_delta::fuzzing::{encode_raw, raw_chunk};
use sparse_fuzz::Input;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let (flags, len) = (input.byte(), input.number() % 4096);
    let element = usize::from(flags >> 1) % 9;
    let base = (flags & 1 == 1).then(|| vec![0x5a; len]);
    raw_chunk(base.as_deref(), input.0, element, len);
    let base = (flags & 1 == 1).then(|| vec![0x5a; input.0.len()]);
    let coded = encode_raw(base.as_deref(), input.0, element.max(1)).expect("zstd");
    assert!(coded.len() <= input.0.len() + 1);
});
