//! Scales of a chunk's segments: each as the difference to the one before.

use crate::CodecError;
use crate::binary::{BinaryDecoder, BinaryEncoder, Number};
use crate::bytes::{unzigzag, zigzag};

pub(super) fn encode(rows: &[i32]) -> Vec<u8> {
    let mut coder = BinaryEncoder::new();
    let mut model = Number::NEW;
    let mut last = 0;
    for &row in rows {
        model.encode(&mut coder, zigzag(row - last));
        last = row;
    }
    coder.finish()
}

/// Reads `count` scales, each within `reach` of zero.
pub(super) fn decode(bytes: &[u8], count: usize, reach: i32) -> Result<Vec<i32>, CodecError> {
    let mut coder = BinaryDecoder::new(bytes);
    let mut model = Number::NEW;
    let mut last = 0i32;
    let rows = (0..count)
        .map(|_| {
            let row = last.saturating_add(unzigzag(model.decode(&mut coder)));
            if row.abs() > reach {
                return Err(CodecError::Invalid {
                    field: "scale of a segment",
                    found: u64::from(row.unsigned_abs()),
                    expected: "a number near zero",
                });
            }
            last = row;
            Ok(row)
        })
        .collect::<Result<_, _>>()?;
    coder.finish("segment scales")?;
    Ok(rows)
}
