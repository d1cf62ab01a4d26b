//! Blocks as codes and scales, for kernels that multiply codes.

use super::{GgmlType, half, legacy, superblock};

/// The codes of rows of blocks: a weight is `scale * code + offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockCodes {
    /// Inputs that share a scale.
    pub group: usize,
    /// Bits of a code, 4 or 8; those of 4 are 0 to 15.
    pub bits: u32,
    /// One per weight, row by row.
    pub codes: Vec<i8>,
    /// Scales of groups.
    pub scales: Numbers,
    /// What is added.
    pub offsets: BlockOffsets,
}

/// What is added to `scale * code`.
#[derive(Clone, Debug, PartialEq)]
pub enum BlockOffsets {
    /// Nothing.
    None,
    /// `-zero * scale`.
    Zero(f32),
    /// A number for each group.
    Values(Numbers),
}

/// A number for each group: a fine one for the group times a coarse one for `span` groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    /// One per group; whole numbers, or all 1.
    pub fine: Vec<f32>,
    /// One per span.
    pub coarse: Vec<f32>,
    /// Groups of a span.
    pub span: usize,
}

impl Numbers {
    fn with_span(span: usize) -> Numbers {
        Numbers {
            span,
            ..Numbers::default()
        }
    }

    fn push<const N: usize>(&mut self, coarse: f32, fine: [f32; N]) {
        self.coarse.push(coarse);
        self.fine.extend(fine);
    }
}

/// Takes rows of blocks apart, or `None` where weights are no codes.
///
/// # Panics
/// If `bytes` are not whole blocks.
pub fn codes(bytes: &[u8], kind: GgmlType) -> Option<BlockCodes> {
    let (weights, size) = kind.block();
    assert!(bytes.len().is_multiple_of(size));
    let (group, bits) = match kind {
        GgmlType::F32 | GgmlType::F16 => return None,
        GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q4_K => (32, 4),
        GgmlType::Q5_0 | GgmlType::Q8_0 | GgmlType::Q5_1 | GgmlType::Q5_K => (32, 8),
        GgmlType::Q6_K => (16, 8),
    };
    let mut out = vec![0i8; bytes.len() / size * weights];
    let mut scales = Numbers::with_span(weights / group);
    let mut offsets = Numbers::with_span(weights / group);
    for (block, codes) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(weights)) {
        match kind {
            GgmlType::Q4_0 => legacy::q4_codes(block, codes),
            GgmlType::Q4_1 => {
                legacy::q4_codes(block, codes);
                offsets.push(half(block, 2), [1.0]);
            }
            GgmlType::Q5_0 => {
                legacy::q5_codes(block, codes, false);
                codes.iter_mut().for_each(|code| *code -= 16);
            }
            GgmlType::Q5_1 => {
                legacy::q5_codes(block, codes, true);
                offsets.push(half(block, 2), [1.0]);
            }
            GgmlType::Q4_K | GgmlType::Q5_K => {
                superblock::q45_k_codes(block, codes, kind == GgmlType::Q5_K);
                let ([d, dmin], groups) = superblock::q45_k_scales(block);
                scales.push(d, groups.map(|(scale, _)| f32::from(scale)));
                offsets.push(-dmin, groups.map(|(_, minimum)| f32::from(minimum)));
            }
            GgmlType::Q6_K => {
                superblock::q6_k_codes(block, codes);
                let (d, multiples) = superblock::q6_k_scales(block);
                scales.push(d, multiples.map(f32::from));
            }
            _ => {
                for (code, &byte) in codes.iter_mut().zip(&block[2..]) {
                    *code = byte as i8;
                }
            }
        }
        if weights == group {
            scales.push(half(block, 0), [1.0]);
        }
    }
    Some(BlockCodes {
        group,
        bits,
        codes: out,
        scales,
        offsets: match kind {
            GgmlType::Q4_0 => BlockOffsets::Zero(8.0),
            GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4_K | GgmlType::Q5_K => {
                BlockOffsets::Values(offsets)
            }
            _ => BlockOffsets::None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::dequantize;
    use super::*;

    #[test]
    fn codes_stand_for_the_weights() {
        // Bytes without halves that are infinite.
        let byte = |i: usize| ((i * 7919 + i / 7) % 251) as u8 & 0xbf;
        for kind in GgmlType::ALL {
            let (weights, size) = kind.block();
            let bytes: Vec<u8> = (0..6 * size).map(byte).collect();
            let Some(found) = codes(&bytes, kind) else {
                assert!(matches!(kind, GgmlType::F32 | GgmlType::F16));
                continue;
            };
            let plain = dequantize(&bytes, kind, 2, 3 * weights);
            for (at, (&code, &weight)) in found.codes.iter().zip(plain.data()).enumerate() {
                let number = |numbers: &Numbers| {
                    let group = at / found.group;
                    numbers.fine[group] * numbers.coarse[group / numbers.span]
                };
                let scale = number(&found.scales);
                let offset = match &found.offsets {
                    BlockOffsets::None => 0.0,
                    BlockOffsets::Zero(zero) => -zero * scale,
                    BlockOffsets::Values(values) => number(values),
                };
                let again = scale * f32::from(code) + offset;
                assert!(found.bits == 8 || (0..16).contains(&code));
                assert!(
                    (again - weight).abs() <= 1e-6 * weight.abs().max(again.abs()),
                    "{kind:?}"
                );
            }
        }
    }
}
