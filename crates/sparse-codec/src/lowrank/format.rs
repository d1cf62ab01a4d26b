//! Floating-point formats as arithmetic: words to numbers and back.

use std::marker::PhantomData;
use std::ops::{Add, AddAssign, Mul};

use super::{LowRank, panels};
use crate::{Layout, Word};

/// The type that predictions are summed in.
pub(super) trait Real:
    Copy + Default + Add<Output = Self> + Mul<Output = Self> + AddAssign
{
    /// Rounds to nearest even where the integer has more bits than the type.
    fn from_int(value: i32) -> Self;
    /// `2^exponent`, for exponents of -126 to 127.
    fn power(exponent: i32) -> Self;
    /// The right factors of a matrix in panels, made when they are first needed.
    fn panels(matrix: &LowRank) -> &[Self];
}

fn make_panels<T: Real>(matrix: &LowRank) -> Vec<T> {
    let right: Vec<T> = matrix.right.iter().map(|&x| T::from_int(x)).collect();
    panels(&right, matrix.cols)
}

impl Real for f32 {
    #[inline(always)]
    fn from_int(value: i32) -> Self {
        value as Self
    }
    #[inline(always)]
    fn power(exponent: i32) -> Self {
        Self::from_bits(((exponent + 127).clamp(1, 254) as u32) << 23)
    }
    fn panels(matrix: &LowRank) -> &[Self] {
        matrix.panels.singles.get_or_init(|| make_panels(matrix))
    }
}

impl Real for f64 {
    #[inline(always)]
    fn from_int(value: i32) -> Self {
        Self::from(value)
    }
    #[inline(always)]
    fn power(exponent: i32) -> Self {
        Self::from(f32::power(exponent))
    }
    fn panels(matrix: &LowRank) -> &[Self] {
        matrix.panels.doubles.get_or_init(|| make_panels(matrix))
    }
}

/// A format with infinities whose values all fit `f32`.
pub(super) trait Format: Copy {
    type Word: Word;
    type Sum: Real;
    /// The word's value; whatever comes out where it is not finite.
    fn value(self, word: Self::Word) -> f32;
    fn sum(self, word: Self::Word) -> Self::Sum;
    /// Rounds to nearest, ties to even.
    fn round(self, value: Self::Sum) -> Self::Word;
    fn is_finite(self, word: Self::Word) -> bool;
}

/// bfloat16.
#[derive(Clone, Copy)]
pub(super) struct Bf16<W>(PhantomData<W>);

/// IEEE half precision.
#[derive(Clone, Copy)]
pub(super) struct F16<W>(PhantomData<W>);

/// IEEE single precision with low bits that are zero.
#[derive(Clone, Copy)]
pub(super) struct F32<W> {
    shift: u32,
    word: PhantomData<W>,
}

/// Rounds the low `shift` bits of a float's bits away, ties to even.
#[inline(always)]
fn round_bits(bits: u32, shift: u32) -> u32 {
    let half = (1u32 << shift) >> 1;
    let odd = bits >> shift & 1;
    // A finite value may round up to infinity, which is right; infinity itself has no low bits.
    bits.wrapping_add(half.wrapping_sub(1).wrapping_add(odd)) >> shift
}

impl<W: Word> Format for Bf16<W> {
    type Word = W;
    type Sum = f32;
    #[inline(always)]
    fn value(self, word: W) -> f32 {
        f32::from_bits(word.widen() << 16)
    }
    #[inline(always)]
    fn sum(self, word: W) -> f32 {
        self.value(word)
    }
    #[inline(always)]
    fn round(self, value: f32) -> W {
        W::narrow(round_bits(value.to_bits(), 16))
    }
    #[inline(always)]
    fn is_finite(self, word: W) -> bool {
        word.widen() & 0x7f80 != 0x7f80
    }
}

impl<W: Word> Format for F16<W> {
    type Word = W;
    type Sum = f32;
    #[inline(always)]
    fn value(self, word: W) -> f32 {
        let bits = word.widen();
        // The exponent's bias differs by 112; the product is exact for subnormals too.
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::power(112);
        f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
    }
    #[inline(always)]
    fn sum(self, word: W) -> f32 {
        self.value(word)
    }
    #[inline(always)]
    fn round(self, value: f32) -> W {
        let bits = value.to_bits();
        let magnitude = bits & 0x7fff_ffff;
        let normal = round_bits(magnitude, 13)
            .wrapping_sub(112 << 10)
            .min(0x7c00);
        // Half precision's subnormal step is that of single precision just above 0.5.
        let tiny = (f32::from_bits(magnitude) + 0.5)
            .to_bits()
            .wrapping_sub(0x3f00_0000);
        let rounded = if magnitude < (113 << 23) {
            tiny
        } else {
            normal
        };
        W::narrow(rounded | bits >> 16 & 0x8000)
    }
    #[inline(always)]
    fn is_finite(self, word: W) -> bool {
        word.widen() & 0x7c00 != 0x7c00
    }
}

impl<W: Word> Format for F32<W> {
    type Word = W;
    type Sum = f64;
    #[inline(always)]
    fn value(self, word: W) -> f32 {
        f32::from_bits(word.widen())
    }
    #[inline(always)]
    fn sum(self, word: W) -> f64 {
        f64::from(self.value(word))
    }
    #[inline(always)]
    fn round(self, value: f64) -> W {
        let bits = (value as f32).to_bits();
        if self.shift == 0 {
            return W::narrow(bits);
        }
        W::narrow(round_bits(bits, self.shift) << self.shift)
    }
    #[inline(always)]
    fn is_finite(self, word: W) -> bool {
        word.widen() & 0x7f80_0000 != 0x7f80_0000
    }
}

/// What is done for whichever format a layout is.
pub(super) trait Visit<W: Word> {
    type Output;
    fn visit<F: Format<Word = W>>(self, format: F) -> Self::Output;
}

/// Calls `visitor` with the layout's format; `None` for the formats without one here.
pub(super) fn dispatch<W: Word, V: Visit<W>>(layout: Layout, visitor: V) -> Option<V::Output> {
    let shift = layout.shift();
    match (
        W::BITS == layout.bits(),
        layout.bits(),
        layout.mantissa() + shift,
    ) {
        (true, 16, 7) if shift == 0 => Some(visitor.visit(Bf16(PhantomData))),
        (true, 16, 10) if shift == 0 => Some(visitor.visit(F16(PhantomData))),
        (true, 32, 23) => Some(visitor.visit(F32 {
            shift,
            word: PhantomData,
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_and_midpoints_round_to_even() {
        let (bf16, half) = (Bf16::<u16>(PhantomData), F16::<u16>(PhantomData));
        for word in 0..=u16::MAX {
            if bf16.is_finite(word) {
                assert_eq!(bf16.round(bf16.value(word)), word);
            }
            if half.is_finite(word) {
                assert_eq!(half.round(half.value(word)), word, "{word:04x}");
                let next = word + 1;
                if half.is_finite(next) {
                    let middle = (half.value(word) + half.value(next)) / 2.0;
                    assert_eq!(half.round(middle), word + (word & 1), "{word:04x}");
                }
            }
        }
        assert_eq!(half.value(0x3c00), 1.0);
        assert_eq!(half.round(65519.9), 0x7bff);
        assert_eq!(half.round(65520.0), 0x7c00);
        assert_eq!(half.round(-1e30), 0xfc00);
        let short = F32::<u32> {
            shift: 16,
            word: PhantomData,
        };
        assert_eq!(short.round(1.0 + 1.0 / 256.0), 0x3f80_0000);
        assert_eq!(short.round(1.0 + 3.0 / 256.0), 0x3f82_0000);
    }
}
