//! A table set; one that is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_codec::{Reader, TableSet};

fuzz_target!(|input: &[u8]| {
    if let Ok(tables) = TableSet::read(&mut Reader::new(input, "tables")) {
        let mut bytes = Vec::new();
        tables.write(&mut bytes);
        let back = TableSet::read(&mut Reader::new(&bytes, "tables"));
        assert!(back.is_ok_and(|back| back == tables));
    }
});
