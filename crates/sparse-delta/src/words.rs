//! Tensor bytes as words of their dtype, and the casts between float formats.

use sparse_checkpoint::Dtype;
use sparse_codec::Layout;

#[cfg(target_endian = "big")]
compile_error!("safetensors data is little-endian, and is used in place");

/// The words of a run of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Words {
    /// One byte each.
    W8(Vec<u8>),
    /// Two bytes each.
    W16(Vec<u16>),
    /// Four bytes each.
    W32(Vec<u32>),
}

/// Runs one generic expression for whichever width the words have.
macro_rules! each_width {
    ($words:expr, $w:ident => $body:expr) => {
        match $words {
            $crate::words::Words::W8($w) => $body,
            $crate::words::Words::W16($w) => $body,
            $crate::words::Words::W32($w) => $body,
        }
    };
}
pub(crate) use each_width;

impl Words {
    /// Zeros.
    pub(crate) fn zeros(bytes_each: usize, len: usize) -> Self {
        match bytes_each {
            1 => Self::W8(vec![0; len]),
            2 => Self::W16(vec![0; len]),
            _ => Self::W32(vec![0; len]),
        }
    }

    /// Appends words of the same width.
    pub(crate) fn extend(&mut self, more: &Self) {
        match (self, more) {
            (Self::W8(words), Self::W8(more)) => words.extend_from_slice(more),
            (Self::W16(words), Self::W16(more)) => words.extend_from_slice(more),
            (Self::W32(words), Self::W32(more)) => words.extend_from_slice(more),
            _ => {}
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        each_width!(self, w => bytemuck::cast_slice(w))
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        each_width!(self, w => bytemuck::cast_slice_mut(w))
    }

    pub(crate) fn len(&self) -> usize {
        each_width!(self, w => w.len())
    }
}

/// The float layout of a dtype that the codec models; the others are stored as bytes.
pub(crate) fn layout(dtype: Dtype) -> Option<Layout> {
    match dtype {
        Dtype::BF16 => Some(Layout::BF16),
        Dtype::F16 => Some(Layout::F16),
        Dtype::F32 => Some(Layout::F32),
        Dtype::F8_E4M3 => Some(Layout::F8_E4M3),
        Dtype::F8_E5M2 => Some(Layout::F8_E5M2),
        _ => None,
    }
}

/// Whether weights of dtype `from` can serve as the base of weights of dtype `to`.
pub(crate) fn castable(from: Dtype, to: Dtype) -> bool {
    from == to || (is_wide(from) && is_wide(to))
}

fn is_wide(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::BF16 | Dtype::F16 | Dtype::F32)
}

/// Casts words of `from` to words of `to`, rounding to nearest even, in integers only so that
/// every machine gets the same bits. NaNs keep their sign and top payload bits.
pub(crate) fn cast(words: Words, from: Dtype, to: Dtype) -> Words {
    if from == to {
        return words;
    }
    let single = |i: usize| -> u32 {
        match &words {
            Words::W32(w) => w[i],
            Words::W16(w) if from == Dtype::BF16 => u32::from(w[i]) << 16,
            Words::W16(w) => f16_to_f32(w[i]),
            Words::W8(w) => u32::from(w[i]),
        }
    };
    let len = words.len();
    match to {
        Dtype::F32 => Words::W32((0..len).map(single).collect()),
        Dtype::BF16 => Words::W16((0..len).map(|i| f32_to_bf16(single(i))).collect()),
        _ => Words::W16((0..len).map(|i| f32_to_f16(single(i))).collect()),
    }
}

fn f32_to_bf16(bits: u32) -> u16 {
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

fn f16_to_f32(bits: u16) -> u32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let mantissa = u32::from(bits & 0x3ff);
    let magnitude = match (exponent, mantissa) {
        (0, 0) => 0,
        (0, m) => {
            // Subnormal: its leading bit becomes the implicit one.
            let shift = m.leading_zeros() - 21;
            (113 - shift) << 23 | (m << shift & 0x3ff) << 13
        }
        (31, m) => 0x7f80_0000 | m << 13,
        (e, m) => (e + 112) << 23 | m << 13,
    };
    sign | magnitude
}

fn f32_to_f16(bits: u32) -> u16 {
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00 | (magnitude >> 13 & 0x3ff) as u16;
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    let (value, drop) = if magnitude >= 0x3880_0000 {
        (magnitude - (112 << 23), 13)
    } else {
        // Subnormal or zero: the implicit bit is written out and shifted down.
        let shift = 126 - (magnitude >> 23);
        if shift > 25 {
            return sign;
        }
        (magnitude & 0x7f_ffff | 0x80_0000, shift)
    };
    let half = (1u32 << (drop - 1)) - 1 + (value >> drop & 1);
    sign | ((value + half) >> drop) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_agree_with_the_half_crate() {
        for bits in 0..=u16::MAX {
            let value = half::f16::from_bits(bits);
            if !value.is_nan() {
                assert_eq!(f16_to_f32(bits), value.to_f32().to_bits(), "{bits:04x}");
                assert_eq!(f32_to_f16(f16_to_f32(bits)), bits);
            }
        }
        let mut bits = 0u32;
        for _ in 0..2_000_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let value = f32::from_bits(bits);
            if !value.is_nan() {
                assert_eq!(
                    f32_to_f16(bits),
                    half::f16::from_f32(value).to_bits(),
                    "{bits:08x}"
                );
                assert_eq!(
                    f32_to_bf16(bits),
                    half::bf16::from_f32(value).to_bits(),
                    "{bits:08x}"
                );
            }
        }
    }

    #[test]
    fn nans_stay_nans() {
        for bits in [0x7f80_0001u32, 0xffff_ffff, 0x7fc0_0000] {
            assert!(half::f16::from_bits(f32_to_f16(bits)).is_nan());
            assert!(half::bf16::from_bits(f32_to_bf16(bits)).is_nan());
        }
    }
}
