//! Bytes that are not modelled: zstd, against the base where there is one.

use std::io::{self, Read, Write};

use crate::index::RAW_CHUNK_BYTES;

const LEVEL: i32 = 9;
/// Base files up to this size serve as dictionary.
pub(crate) const MAX_DICTIONARY: u64 = 64 << 20;

const PLAIN: u8 = 0;
const PACKED: u8 = 1;
const PLANES: u8 = 2;
const XOR: u8 = 4;

/// Codes a chunk of a tensor: plain, zstd, zstd of its byte planes, each with or without the
/// base's bytes XORed in, whichever is shortest. `element` is the bytes of one number.
pub(crate) fn encode(base: Option<&[u8]>, fine: &[u8], element: usize) -> io::Result<Vec<u8>> {
    let mut best = vec![PLAIN];
    best.extend_from_slice(fine);
    let mut offer = |tag: u8, bytes: &[u8]| -> io::Result<()> {
        let packed = zstd::bulk::compress(bytes, LEVEL)?;
        if packed.len() + 1 < best.len() {
            best.clear();
            best.push(tag);
            best.extend_from_slice(&packed);
        }
        Ok(())
    };
    offer(PACKED, fine)?;
    if element > 1 {
        offer(PACKED | PLANES, &to_planes(fine, element))?;
    }
    if let Some(base) = base {
        let mixed: Vec<u8> = base.iter().zip(fine).map(|(b, f)| b ^ f).collect();
        offer(PACKED | XOR, &mixed)?;
        if element > 1 {
            offer(PACKED | XOR | PLANES, &to_planes(&mixed, element))?;
        }
    }
    Ok(best)
}

/// Decodes a chunk into `out`, which the caller has sized.
pub(crate) fn decode(
    base: Option<&[u8]>,
    coded: &[u8],
    element: usize,
    out: &mut [u8],
) -> Result<(), String> {
    debug_assert!(out.len() as u64 <= RAW_CHUNK_BYTES);
    let (&tag, bytes) = coded.split_first().ok_or("empty chunk")?;
    if tag == PLAIN {
        if bytes.len() != out.len() {
            return Err(format!("{} bytes, expected {}", bytes.len(), out.len()));
        }
        out.copy_from_slice(bytes);
        return Ok(());
    }
    if tag & PACKED == 0 || tag > PACKED | PLANES | XOR {
        return Err(format!("unknown kind of chunk {tag}"));
    }
    let len = zstd::bulk::decompress_to_buffer(bytes, out).map_err(|e| e.to_string())?;
    if len != out.len() {
        return Err(format!("{len} bytes, expected {}", out.len()));
    }
    if tag & PLANES != 0 {
        let planes = out.to_vec();
        from_planes(&planes, element.max(1), out);
    }
    if tag & XOR != 0 {
        let base = base
            .filter(|base| base.len() == out.len())
            .ok_or("needs a base")?;
        out.iter_mut().zip(base).for_each(|(o, b)| *o ^= b);
    }
    Ok(())
}

/// All first bytes, then all second ones, ...; a rest shorter than a number at the end.
fn to_planes(bytes: &[u8], element: usize) -> Vec<u8> {
    let whole = bytes.len() / element * element;
    let mut out = Vec::with_capacity(bytes.len());
    for plane in 0..element {
        out.extend(bytes[..whole].iter().skip(plane).step_by(element));
    }
    out.extend_from_slice(&bytes[whole..]);
    out
}

fn from_planes(planes: &[u8], element: usize, out: &mut [u8]) {
    let count = planes.len() / element;
    for plane in 0..element {
        for (i, &byte) in planes[plane * count..][..count].iter().enumerate() {
            out[i * element + plane] = byte;
        }
    }
    out[count * element..].copy_from_slice(&planes[count * element..]);
}

/// Packs a stream of `size` bytes, with `dictionary` (may be empty) as its history.
///
/// # Errors
/// If the stream has another size, or cannot be read or written.
pub(crate) fn pack(
    mut from: impl Read,
    dictionary: &[u8],
    size: u64,
    to: impl Write,
) -> io::Result<()> {
    let level = if size <= 16 << 20 { 19 } else { LEVEL };
    let mut encoder = zstd::stream::Encoder::with_ref_prefix(to, level, dictionary)?;
    encoder.long_distance_matching(!dictionary.is_empty())?;
    encoder.window_log(window_log(dictionary.len() as u64 + size))?;
    // Without the size zstd sets up for the largest file: 80 MB and 60 ms for every small one. It
    // is in the index, so not in the frame.
    encoder.set_pledged_src_size(Some(size))?;
    encoder.include_contentsize(false)?;
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?;
    Ok(())
}

/// A reader of what [`pack`] wrote.
pub(crate) fn unpack<'a>(from: impl Read + 'a, dictionary: &'a [u8]) -> io::Result<impl Read + 'a> {
    let mut decoder = zstd::stream::Decoder::with_ref_prefix(io::BufReader::new(from), dictionary)?;
    decoder.window_log_max(27)?;
    Ok(decoder)
}

/// The smallest window that holds `bytes`, within what [`unpack`] accepts.
fn window_log(bytes: u64) -> u32 {
    (64 - bytes.leading_zeros()).clamp(10, 27)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_round_trip(
            fine in proptest::collection::vec(any::<u8>(), 0..600), element in 1usize..9,
            salt in any::<u8>(), with_base in any::<bool>(),
        ) {
            let base: Vec<u8> = fine.iter().map(|b| b ^ (salt & 1)).collect();
            let base = with_base.then_some(base.as_slice());
            let coded = encode(base, &fine, element).unwrap();
            prop_assert!(coded.len() <= fine.len() + 1);
            let mut out = vec![0; fine.len()];
            decode(base, &coded, element, &mut out).unwrap();
            prop_assert_eq!(out, fine);
        }

        #[test]
        fn damaged_chunks_give_an_error_or_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut out = [0; 40];
            let _ = decode(None, &bytes, 4, &mut out);
            let _ = decode(Some(&[1; 40]), &bytes, 3, &mut out);
        }

        #[test]
        fn streams_round_trip(text in "[ab\\n]{0,300}", dictionary in "[ab\\n]{0,300}") {
            let mut packed = Vec::new();
            pack(text.as_bytes(), dictionary.as_bytes(), text.len() as u64, &mut packed).unwrap();
            let mut back = String::new();
            unpack(packed.as_slice(), dictionary.as_bytes()).unwrap().read_to_string(&mut back).unwrap();
            prop_assert_eq!(back, text);
        }
    }
}
