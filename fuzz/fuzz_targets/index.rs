//! The index of a delta, packed or not.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| sparse_delta::fuzzing::index(input));
