//! The scales of a tensor whose width comes first; those that are read can be written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_codec::{Reader, Scales};
use sparse_fuzz::Input;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let width = input.number();
    if let Ok(scales) = Scales::read(&mut Reader::new(input.0, "scales"), width) {
        let mut bytes = Vec::new();
        scales.write(&mut bytes);
        let back = Scales::read(&mut Reader::new(&bytes, "scales"), width);
        assert!(back.is_ok_and(|back| back == scales));
    }
});
