//! The header of a safetensors file, with the length of its data in front.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_checkpoint::{header_len, parse_header};

fuzz_target!(|input: &[u8]| {
    let Some((length, text)) = input.split_first_chunk::<8>() else {
        return;
    };
    let _ = header_len(*length, text.len() as u64);
    if let Ok(header) = parse_header(text, u64::from_le_bytes(*length)) {
        // What was accepted covers the data exactly once.
        let tensors: u64 = header.tensors().iter().map(|t| t.bytes()).sum();
        let gaps: u64 = header.gaps().iter().map(|gap| gap.end - gap.start).sum();
        assert_eq!(tensors + gaps, header.data_len());
    }
});
