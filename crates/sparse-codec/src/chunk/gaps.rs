//! Changes where none were expected: the gap to each from the one before, and its steps.

use crate::CodecError;
use crate::binary::{BinaryDecoder, BinaryEncoder, Number};
use crate::bytes::{unzigzag, zigzag};

pub(super) fn encode(changes: &[(u32, i32)]) -> Vec<u8> {
    let mut coder = BinaryEncoder::new();
    let (mut gaps, mut steps) = (Number::NEW, Number::NEW);
    let mut next = 0;
    for &(position, step) in changes {
        gaps.encode(&mut coder, position - next);
        steps.encode(&mut coder, zigzag(step));
        next = position + 1;
    }
    coder.finish()
}

/// Calls `apply` with the position, below `len`, and the steps of each of `count` changes.
pub(super) fn decode(
    bytes: &[u8],
    count: usize,
    len: usize,
    mut apply: impl FnMut(usize, i32),
) -> Result<(), CodecError> {
    let mut coder = BinaryDecoder::new(bytes);
    let (mut gaps, mut steps) = (Number::NEW, Number::NEW);
    let mut next = 0usize;
    for _ in 0..count {
        let position = next + gaps.decode(&mut coder) as usize;
        if position >= len {
            return Err(CodecError::Invalid {
                field: "position of a change",
                found: position as u64,
                expected: "below the chunk's length",
            });
        }
        apply(position, unzigzag(steps.decode(&mut coder)));
        next = position + 1;
    }
    coder.finish("gaps")
}
