//! A file as an edit of other bytes, where rows do not help: zstd against a
//! prefix, over windows as large as both.

use std::io::{Read, Write};

/// Larger inputs are not compared byte by byte.
pub(crate) const LARGEST: u64 = 256 << 20;

fn window(total: usize) -> u32 {
    (total.max(1) as u64)
        .next_power_of_two()
        .trailing_zeros()
        .clamp(10, 31)
}

/// Compresses `data` given `prefix`; `None` where zstd refuses.
pub(crate) fn pack(data: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), 19, prefix).ok()?;
    encoder.window_log(window(data.len() + prefix.len())).ok()?;
    encoder.long_distance_matching(true).ok()?;
    encoder.include_contentsize(false).ok()?;
    encoder.write_all(data).ok()?;
    encoder.finish().ok()
}

/// Undoes [`pack`]; `None` if it does not lead to exactly `length` bytes.
pub(crate) fn unpack(packed: &[u8], prefix: &[u8], length: u64) -> Option<Vec<u8>> {
    if length > LARGEST {
        return None;
    }
    let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(packed, prefix).ok()?;
    decoder.window_log_max(31).ok()?;
    let mut out = Vec::new();
    decoder.take(length + 1).read_to_end(&mut out).ok()?;
    (out.len() as u64 == length).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_of_the_prefix_is_small() {
        let prefix: Vec<u8> = (0..40_000u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let mut data = prefix.clone();
        data[70_000] ^= 1;
        let packed = pack(&data, &prefix);
        assert!(packed.as_ref().is_some_and(|packed| packed.len() < 200));
        assert_eq!(
            packed.and_then(|packed| unpack(&packed, &prefix, data.len() as u64)),
            Some(data)
        );
    }
}
