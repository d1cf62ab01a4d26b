//! Which table codes a weight's change: the number of steps it is expected to take.
//!
//! An optimizer moves the weights of a row by about the same absolute amount, its *scale*. A
//! weight's representable step is set by its exponent. So scale / step, the expected number of
//! steps, decides the distribution of the difference, whatever the tensor. Scales and contexts
//! count quarter octaves (a factor of 2^(1/4)).

use crate::simd::vectorised;
use crate::{Layout, Word};

/// Expected steps below 2^-10 share one context.
const LOWEST: i32 = -40;
/// Contexts from here up (16 steps expected) leave low bits uncoded.
const RAW_FROM: i32 = 16;

/// Symbol of a difference that the table does not hold.
pub(crate) const ESCAPE: u8 = 0;
/// Symbol of no difference.
pub(crate) const UNCHANGED: u8 = 121;
/// Largest difference with a symbol of its own, in units of `2^low_bits` steps.
pub(crate) const DIRECT: i32 = 120;

/// Weights coded at a time, so that what is kept of each stays in the first-level cache.
pub(crate) const BLOCK: usize = 4096;

/// The contexts of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Contexts {
    layout: Layout,
}

impl Contexts {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout }
    }

    /// How many contexts there are; at most 170.
    pub(crate) fn count(self) -> usize {
        (4 * (self.layout.mantissa() as i32 + 9) - LOWEST + 1) as usize
    }

    /// Expected steps of a context, in quarter octaves.
    pub(crate) fn expected(self, context: usize) -> i32 {
        context as i32 + LOWEST
    }

    /// Bits of a difference that are stored as they are, so that what remains is about 8 to 16.
    ///
    /// Weights that are small beside the scale move on a logarithmic grid, where differences
    /// grow no further: hence the upper bound.
    #[inline(always)]
    pub(crate) fn low_bits(self, context: u8) -> u32 {
        u32::from(self.low_bits_of(context))
    }

    /// [`Contexts::low_bits`] in bytes.
    #[inline(always)]
    pub(crate) fn low_bits_of(self, context: u8) -> u8 {
        let (from, most) = self.low_bits_rule();
        (context.saturating_sub(from as u8) >> 2).min(most as u8)
    }

    /// What [`Contexts::low_bits`] computes with: the count is `(context - from) / 4` rounded
    /// down, from 0 to `most`.
    #[inline(always)]
    pub(crate) fn low_bits_rule(self) -> (i32, i32) {
        (RAW_FROM - LOWEST - 4, self.most_low_bits() as i32)
    }

    /// The most low bits that any context has.
    #[inline(always)]
    pub(crate) fn most_low_bits(self) -> u32 {
        (self.layout.mantissa() as i32 - 3).max(0) as u32
    }

    /// The first context with low bits, or the number of contexts.
    pub(crate) fn first_raw(self) -> u8 {
        (0..self.count() as u8)
            .find(|&c| self.low_bits(c) > 0)
            .unwrap_or(self.count() as u8)
    }

    /// The context of every weight in a run that shares one row scale.
    ///
    /// `columns`, where not empty, holds an offset for each weight of the run.
    pub(crate) fn fill<W: Word>(self, base: &[W], scale: i32, columns: &[i8], out: &mut [u8]) {
        let top = self.count() as i32 - 1;
        if columns.is_empty() {
            let scale = scale - LOWEST;
            #[allow(unused_mut)]
            let mut done = 0;
            #[cfg(target_arch = "x86_64")]
            if W::BITS == 16 && crate::simd::level() == crate::simd::Level::Avx512 {
                let (mantissa, scale) = (self.layout.stored_mantissa(), scale.clamp(-FAR, FAR));
                // SAFETY: the features were just detected.
                done = unsafe {
                    crate::context_avx512::fill_row(mantissa, base, scale as i16, top as u8, out)
                };
            }
            fill_row(self.layout, &base[done..], scale, top, &mut out[done..]);
        } else {
            fill_columns(self.layout, base, scale - LOWEST, columns, top, out);
        }
    }
}

/// Scales beyond this give the same contexts as this, and sums with it fit 16 bits.
const FAR: i32 = 1 << 13;

vectorised! {
    fn fill_row<W: Word>(layout: Layout, base: &[W], scale: i32, top: i32, out: &mut [u8]) {
        let (scale, top) = (scale.clamp(-FAR, FAR) as i16, top as i16);
        let mantissa = layout.stored_mantissa();
        for (out, &word) in out.iter_mut().zip(base) {
            *out = (scale - 4 * word.exponent(mantissa)).clamp(0, top) as u8;
        }
    }
}

vectorised! {
    fn fill_columns<W: Word>(layout: Layout, base: &[W], scale: i32, columns: &[i8], top: i32, out: &mut [u8]) {
        let (scale, top) = (scale.clamp(-FAR, FAR) as i16, top as i16);
        let mantissa = layout.stored_mantissa();
        for ((out, &word), &column) in out.iter_mut().zip(base).zip(columns) {
            let context = scale + i16::from(column) - 4 * word.exponent(mantissa);
            *out = context.clamp(0, top) as u8;
        }
    }
}

/// The symbol and the low bits of a difference.
#[inline(always)]
pub(crate) fn split(steps: i32, low_bits: u32) -> (u8, u32) {
    let half = (1i32 << low_bits) >> 1;
    // Differences that wrap around when centred are out of the direct range anyway.
    let centred = steps.wrapping_add(half);
    let high = centred >> low_bits;
    if (-DIRECT..=DIRECT).contains(&high) && centred >= steps {
        (
            (high + i32::from(UNCHANGED)) as u8,
            centred as u32 & ((1 << low_bits) - 1),
        )
    } else {
        (ESCAPE, 0)
    }
}

/// The inverse of [`split`] for every symbol but [`ESCAPE`].
#[inline(always)]
pub(crate) fn join(symbol: u8, low: u32, low_bits: u32) -> i32 {
    let half = (1i32 << low_bits) >> 1;
    ((i32::from(symbol) - i32::from(UNCHANGED)) << low_bits) + low as i32 - half
}

/// How the rows and columns of a tensor scale its changes.
///
/// The tensor is read as one run of weights, cut in segments of equal length with a scale each;
/// columns repeat every `columns.len()` weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scales {
    /// Scale that the segments' scales are relative to, in quarter octaves.
    pub(crate) base: i16,
    /// Weights in a segment, at least 1.
    pub(crate) segment: u32,
    /// Offset of each column, in quarter octaves; empty where columns do not matter.
    pub(crate) columns: Vec<i8>,
}

impl Scales {
    /// Weights in a segment. Chunks that start and end between segments are coded best.
    #[must_use]
    pub fn segment(&self) -> usize {
        self.segment as usize
    }

    /// The segment length for rows of `width` weights: a row, or an even part or multiple of it,
    /// of about 256 weights.
    #[must_use]
    pub fn segment_for(width: usize) -> usize {
        match width {
            0 => 256,
            1..128 => width * (256 / width).max(1),
            128..512 => width,
            _ => (128..=384)
                .rev()
                .min_by_key(|part| (width % part, part.abs_diff(256)))
                .filter(|&part| width.is_multiple_of(part))
                .unwrap_or(256),
        }
    }

    /// The columns repeated so that any `reach` weights find theirs in one slice; the old contents
    /// of `tile` are dropped.
    pub(crate) fn tile(&self, reach: usize, tile: &mut Vec<i8>) {
        tile.clear();
        let Some(most) = self.columns.len().checked_sub(1) else {
            return;
        };
        tile.extend_from_slice(&self.columns);
        while tile.len() < most + reach {
            let more = (most + reach - tile.len()).min(tile.len());
            tile.extend_from_within(..more);
        }
    }

    /// Offsets of the columns of `len` weights from `start` on, at most the tile's reach; empty where columns do not matter.
    pub(crate) fn columns_at<'a>(&self, tile: &'a [i8], start: usize, len: usize) -> &'a [i8] {
        if self.columns.is_empty() {
            return &[];
        }
        let at = start % self.columns.len();
        &tile[at..at + len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn differences_come_back(steps in any::<i32>(), shift in 0u32..31, low_bits in 0u32..=20) {
            let steps = steps >> shift;
            let (symbol, low) = split(steps, low_bits);
            if symbol != ESCAPE {
                prop_assert_eq!(join(symbol, low, low_bits), steps);
            } else {
                prop_assert!(steps.unsigned_abs() >= (DIRECT as u32) << low_bits);
            }
        }
    }

    #[test]
    fn contexts_count_expected_steps() {
        let contexts = Contexts::new(Layout::BF16);
        // 0.015625 = 2^-6 has exponent field 121: 4 * 121 quarter octaves are one step expected.
        let mut out = [0u8; 2];
        contexts.fill(&[0x3c80u16, 0xbd00], 4 * 121, &[], &mut out);
        assert_eq!(contexts.expected(usize::from(out[0])), 0);
        assert_eq!(contexts.expected(usize::from(out[1])), -4);
        contexts.fill(&[0x3c80u16, 0xbd00], 4 * 121, &[3, 4], &mut out);
        assert_eq!(contexts.expected(usize::from(out[0])), 3);
        assert_eq!(contexts.expected(usize::from(out[1])), 0);
        assert_eq!(contexts.low_bits(contexts.first_raw()), 1);
        // As the format has it.
        for layout in [Layout::BF16, Layout::F16, Layout::F32, Layout::F8_E4M3] {
            let (contexts, most) = (Contexts::new(layout), layout.mantissa() as i32 - 3);
            for context in 0..contexts.count() as u8 {
                let count = (i32::from(context) - 56).div_euclid(4) + 1;
                let count = count.clamp(0, most.max(0)) as u32;
                assert_eq!(contexts.low_bits(context), count);
                assert_eq!(u32::from(contexts.low_bits_of(context)), count);
            }
        }
    }

    #[test]
    fn tiles_repeat_the_columns() {
        for width in [1usize, 3, 100, 4095, 4097, 10_000] {
            let scales = Scales {
                base: 0,
                segment: 256,
                columns: (0..width).map(|i| (i % 101) as i8).collect(),
            };
            let mut tile = Vec::new();
            scales.tile(BLOCK, &mut tile);
            for start in [0, 5, width - 1, 7 * width + 1] {
                let here = scales.columns_at(&tile, start, BLOCK);
                assert!((0..BLOCK).all(|i| here[i] == scales.columns[(start + i) % width]));
            }
        }
    }

    #[test]
    fn segments_fit_rows() {
        assert_eq!(Scales::segment_for(256), 256);
        assert_eq!(Scales::segment_for(4096), 256);
        assert_eq!(Scales::segment_for(11008), 256);
        assert_eq!(Scales::segment_for(3072), 256);
        assert_eq!(Scales::segment_for(1000), 250);
        assert_eq!(Scales::segment_for(64), 256);
        assert_eq!(Scales::segment_for(509), 509);
        assert_eq!(Scales::segment_for(521), 256);
    }
}
