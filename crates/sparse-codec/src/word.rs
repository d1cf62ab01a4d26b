//! Weights as machine words: storage width, exponent and mantissa, numeric order.

use crate::context::{DIRECT, ESCAPE, UNCHANGED};

/// The bit layout of the floating-point values in a chunk.
///
/// `shift` low bits are known to be zero in every word (a bf16 model stored as fp32 has 16 of
/// them) and are left out of all coding.
///
/// ```
/// use sparse_codec::Layout;
/// let bf16 = Layout::BF16;
/// // Consecutive floats have consecutive ordinals, across zero too: -0.0 sits just below 0.0.
/// assert_eq!(bf16.ordinal(0x0000), 0);
/// assert_eq!(bf16.ordinal(0x8000), -1);
/// assert_eq!(bf16.from_ordinal(bf16.ordinal(0xbf80)), 0xbf80);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    bits: u8,
    mantissa: u8,
    shift: u8,
}

impl Layout {
    /// bfloat16: 8 exponent bits, 7 mantissa bits.
    pub const BF16: Self = Self::new(16, 7);
    /// IEEE half precision: 5 exponent bits, 10 mantissa bits.
    pub const F16: Self = Self::new(16, 10);
    /// IEEE single precision: 8 exponent bits, 23 mantissa bits.
    pub const F32: Self = Self::new(32, 23);
    /// OCP FP8 E4M3: 4 exponent bits, 3 mantissa bits.
    pub const F8_E4M3: Self = Self::new(8, 3);
    /// OCP FP8 E5M2: 5 exponent bits, 2 mantissa bits.
    pub const F8_E5M2: Self = Self::new(8, 2);

    const fn new(bits: u8, mantissa: u8) -> Self {
        Self {
            bits,
            mantissa,
            shift: 0,
        }
    }

    /// Bits of one stored word: 8, 16 or 32.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.bits as u32
    }

    /// Bytes of one stored word: 1, 2 or 4.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.bits as usize / 8
    }

    /// Mantissa bits that are coded, after the `shift` zero bits are taken off.
    #[must_use]
    pub const fn mantissa(self) -> u32 {
        (self.mantissa - self.shift) as u32
    }

    /// Mantissa bits of a stored word, zero bits and all.
    pub(crate) const fn stored_mantissa(self) -> u32 {
        self.mantissa as u32
    }

    /// Low bits that are zero in every word.
    #[must_use]
    pub const fn shift(self) -> u32 {
        self.shift as u32
    }

    /// The same format with `shift` low zero bits left out; at most all but two of the mantissa.
    #[must_use]
    pub const fn with_shift(self, shift: u32) -> Option<Self> {
        if shift == 0 {
            return Some(Self { shift: 0, ..self });
        }
        if shift + 2 > self.mantissa as u32 {
            return None;
        }
        Some(Self {
            shift: shift as u8,
            ..self
        })
    }

    /// Bits of a word once the zero bits are shifted out.
    #[must_use]
    pub(crate) const fn width(self) -> u32 {
        (self.bits - self.shift) as u32
    }

    /// The mask of a shifted word without its sign.
    #[inline(always)]
    pub(crate) const fn magnitude_mask(self) -> u32 {
        (1u32 << (self.width() - 1)) - 1
    }

    /// Position of the value in numeric order; -0.0 is one below 0.0, NaNs lie beyond infinity.
    ///
    /// `word` is the stored word; the result is for the word without its `shift` zero bits.
    #[inline(always)]
    #[must_use]
    pub const fn ordinal(self, word: u32) -> i32 {
        let up = 32 - self.bits as u32;
        let signed = ((word << up) as i32) >> (up + self.shift as u32);
        signed ^ ((signed >> 31) & self.magnitude_mask() as i32)
    }

    /// The inverse of [`Layout::ordinal`]; ordinals wrap around at the word's width.
    #[inline(always)]
    #[must_use]
    pub const fn from_ordinal(self, ordinal: i32) -> u32 {
        let up = 32 - self.width();
        let signed = (ordinal << up) >> up;
        let word = signed ^ ((signed >> 31) & self.magnitude_mask() as i32);
        ((word as u32) << up) >> (32 - self.bits as u32)
    }

    /// Exponent field of the word, subnormals counted with the lowest normal binade (same step).
    #[cfg(test)]
    pub(crate) const fn exponent(self, word: u32) -> i32 {
        let e = (((word >> self.shift) & self.magnitude_mask()) >> self.mantissa()) as i32;
        if e < 1 { 1 } else { e }
    }

    /// Difference in representable steps from `base` to `fine`, wrapped to the word's width.
    #[cfg(test)]
    pub(crate) const fn steps(self, base: u32, fine: u32) -> i32 {
        let up = 32 - self.width();
        (self.ordinal(fine).wrapping_sub(self.ordinal(base)) << up) >> up
    }

    /// The word `steps` away from `base`: what [`Word::stepped`] is tested against.
    #[cfg(test)]
    pub(crate) const fn step_from(self, base: u32, steps: i32) -> u32 {
        self.from_ordinal(self.ordinal(base).wrapping_add(steps))
    }
}

/// A storage word: `u8`, `u16` or `u32`.
///
/// The arithmetic is that of [`Layout`], done at the word's own width so that loops over 16-bit
/// words vectorise sixteen wide.
pub trait Word: Copy + Eq + Default + Send + Sync + 'static {
    /// Bits of the word.
    const BITS: u32;
    /// Widens to 32 bits.
    fn widen(self) -> u32;
    /// Keeps the low bits.
    fn narrow(value: u32) -> Self;
    /// Exponent field above `mantissa` stored bits, at least 1.
    #[doc(hidden)]
    fn exponent(self, mantissa: u32) -> i16;
    /// Representable steps to `fine` where `shift` low bits are left out.
    #[doc(hidden)]
    fn steps_to(self, fine: Self, shift: u32) -> i32;
    /// The symbol and the low bits of the steps to `fine`, as `context::split` has them, for as many
    /// low bits as a context of the word's formats has.
    #[doc(hidden)]
    fn split_to(self, fine: Self, shift: u32, low_bits: u8) -> (u8, Self);
    /// The word `steps` away.
    #[doc(hidden)]
    fn stepped(self, steps: i32, shift: u32) -> Self;
    /// The buffers for words of this width.
    #[doc(hidden)]
    fn buffers(all: &mut Buffers) -> &mut [Vec<Self>; 2];
}

/// Two buffers for words of each width, to be used again.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Buffers {
    of_8: [Vec<u8>; 2],
    of_16: [Vec<u16>; 2],
    of_32: [Vec<u32>; 2],
}

/// Steps between two words, at their own width.
macro_rules! own_steps {
    ($base:expr, $fine:expr, $shift:expr, $signed:ty) => {{
        let ordinal = |word: Self| {
            let word = word as $signed;
            (word ^ ((word >> (Self::BITS - 1)) & <$signed>::MAX)) >> $shift
        };
        ordinal($fine).wrapping_sub(ordinal($base)) << $shift >> $shift
    }};
}

macro_rules! word {
    ($($t:ty, $signed:ty, $buffers:ident);*) => {$(
        impl Word for $t {
            const BITS: u32 = <$t>::BITS;
            #[inline(always)]
            fn widen(self) -> u32 {
                u32::from(self)
            }
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation)]
            fn narrow(value: u32) -> Self {
                value as Self
            }
            #[inline(always)]
            fn exponent(self, mantissa: u32) -> i16 {
                (((self & (Self::MAX >> 1)) >> mantissa) as i16).max(1)
            }
            #[inline(always)]
            fn steps_to(self, fine: Self, shift: u32) -> i32 {
                i32::from(own_steps!(self, fine, shift, $signed))
            }
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            fn split_to(self, fine: Self, shift: u32, low_bits: u8) -> (u8, Self) {
                let steps = own_steps!(self, fine, shift, $signed);
                let half = ((1 as $signed) << low_bits) >> 1;
                let centred = steps.wrapping_add(half);
                let high = centred >> low_bits;
                let direct = (-DIRECT as $signed..=DIRECT as $signed).contains(&high);
                if direct && centred >= steps {
                    let rest = centred as Self & (((1 as Self) << low_bits) - 1);
                    ((high as u8).wrapping_add(UNCHANGED), rest)
                } else {
                    (ESCAPE, 0)
                }
            }
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation)]
            fn stepped(self, steps: i32, shift: u32) -> Self {
                let word = self as $signed;
                let ordinal = (word ^ ((word >> (Self::BITS - 1)) & <$signed>::MAX)) >> shift;
                let moved = ordinal.wrapping_add(steps as $signed) << shift;
                let word = moved ^ ((moved >> (Self::BITS - 1)) & <$signed>::MAX);
                (word >> shift << shift) as Self
            }
            fn buffers(all: &mut Buffers) -> &mut [Vec<Self>; 2] {
                &mut all.$buffers
            }
        }
    )*};
}
word!(u8, i8, of_8; u16, i16, of_16; u32, i32, of_32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::split;

    #[test]
    fn ordinals_are_a_bijection_in_numeric_order() {
        for layout in [Layout::BF16, Layout::F16] {
            let mut last = f64::NEG_INFINITY;
            for ordinal in -0x8000i32..0x8000 {
                let word = layout.from_ordinal(ordinal);
                assert_eq!(layout.ordinal(word), ordinal);
                if layout == Layout::BF16 {
                    let value = f64::from(f32::from_bits(word << 16));
                    if !value.is_nan() {
                        assert!(value >= last, "{word:04x}");
                        last = value;
                    }
                }
            }
        }
        for word in [0u32, 0x8000_0000, 1, u32::MAX, 0x7f80_0000, 0x3f80_0001] {
            assert_eq!(Layout::F32.from_ordinal(Layout::F32.ordinal(word)), word);
        }
    }

    /// The word-wide arithmetic is the layout's.
    fn agrees<W: Word + std::fmt::Debug>(layout: Layout, words: &[u32]) {
        for &b in words {
            let base = W::narrow(b >> layout.shift() << layout.shift());
            let exponent = i32::from(base.exponent(layout.stored_mantissa()));
            assert_eq!(exponent, layout.exponent(base.widen()));
            for &f in words {
                let fine = W::narrow(f >> layout.shift() << layout.shift());
                let steps = layout.steps(base.widen(), fine.widen());
                assert_eq!(
                    base.steps_to(fine, layout.shift()),
                    steps,
                    "{base:?} {fine:?}"
                );
                assert_eq!(base.stepped(steps, layout.shift()), fine);
                for low_bits in 0..=layout.mantissa().saturating_sub(3) {
                    let (symbol, rest) = base.split_to(fine, layout.shift(), low_bits as u8);
                    assert_eq!((symbol, rest.widen()), split(steps, low_bits));
                }
                let there = W::narrow(layout.step_from(base.widen(), f as i32));
                assert_eq!(base.stepped(f as i32, layout.shift()), there);
            }
        }
    }

    #[test]
    fn word_wide_arithmetic_agrees_with_the_layout() {
        let words: Vec<u32> = (0..400u32)
            .map(|i| i.wrapping_mul(0x9e37_79b9).rotate_left(i % 32))
            .chain([
                0,
                1,
                0x7f,
                0x80,
                0xff,
                0x7fff,
                0x8000,
                0xffff,
                1 << 31,
                u32::MAX,
            ])
            .collect();
        agrees::<u16>(Layout::BF16, &words);
        agrees::<u16>(Layout::F16, &words);
        agrees::<u8>(Layout::F8_E4M3, &words);
        agrees::<u8>(Layout::F8_E5M2, &words);
        agrees::<u32>(Layout::F32, &words);
        if let Some(shifted) = Layout::F32.with_shift(16) {
            agrees::<u32>(shifted, &words);
        }
        if let Some(shifted) = Layout::F16.with_shift(3) {
            agrees::<u16>(shifted, &words);
        }
    }

    #[test]
    fn steps_wrap_and_come_back() {
        let layout = Layout::F32;
        for (a, b) in [(0u32, u32::MAX), (0x7fff_ffff, 0xffff_ffff), (5, 9)] {
            assert_eq!(layout.step_from(a, layout.steps(a, b)), b);
        }
    }

    #[test]
    fn shifted_words_lose_only_zero_bits() {
        let layout = Layout::F32.with_shift(16).unwrap();
        for word in [0x3f80_0000u32, 0xbf81_0000, 0x8000_0000, 0x7fc0_0000] {
            assert_eq!(layout.from_ordinal(layout.ordinal(word)), word);
            assert_eq!(layout.ordinal(word), Layout::BF16.ordinal(word >> 16));
        }
        assert!(Layout::BF16.with_shift(7).is_none());
    }
}
