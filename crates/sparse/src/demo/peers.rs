//! What other methods make of the same fine-tune, for comparison.

use sparse_checkpoint::Checkpoint;

/// A method and the bytes it needs for the tensors.
pub struct Other {
    pub name: &'static str,
    pub bytes: u64,
}

/// Sizes of the fine-tune's tensor data alone, without headers and other files.
pub fn sizes(base: &Checkpoint, fine: &Checkpoint) -> anyhow::Result<Vec<Other>> {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    let mut bitx = 0;
    for tensor in fine.tensors() {
        let words = tensor.bytes()?;
        let before = match base.tensor(tensor.name()) {
            Some(base) => base.bytes()?,
            None => &[],
        };
        bitx += xor_planes(before, words)?;
        old.extend_from_slice(before);
        new.extend_from_slice(words);
    }
    Ok(vec![
        Other {
            name: "XOR, two planes, zstd -3 (BitX)",
            bytes: bitx,
        },
        Other {
            name: "zstd -19 --patch-from the base",
            bytes: patch(&old, &new)?,
        },
        Other {
            name: "zstd -19",
            bytes: zstd::bulk::compress(&new, 19)?.len() as u64,
        },
    ])
}

/// BitX (ZipLLM, NSDI'26): XOR with the base, exponents apart from signs and mantissas, zstd -3.
fn xor_planes(base: &[u8], fine: &[u8]) -> anyhow::Result<u64> {
    let words = |bytes: &[u8]| -> Vec<u16> {
        bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| u16::from_le_bytes(*b))
            .collect()
    };
    let (mut exponents, mut rest) = (Vec::new(), Vec::new());
    for (b, f) in words(base).into_iter().zip(words(fine)) {
        let mixed = b ^ f;
        exponents.push((mixed >> 7) as u8);
        rest.push((mixed >> 8 & 0x80) as u8 | (mixed & 0x7f) as u8);
    }
    let size = |plane: &[u8]| zstd::bulk::compress(plane, 3).map(|packed| packed.len() as u64);
    Ok(size(&exponents)? + size(&rest)?)
}

fn patch(base: &[u8], fine: &[u8]) -> anyhow::Result<u64> {
    let mut encoder = zstd::stream::Encoder::with_ref_prefix(Vec::new(), 19, base)?;
    encoder.long_distance_matching(true)?;
    encoder.window_log(24)?;
    std::io::Write::write_all(&mut encoder, fine)?;
    Ok(encoder.finish()?.len() as u64)
}
