//! Up to 64 items of which a mask picks some: put side by side, and back to their places.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] // one level, nothing to choose

use crate::Word;
use crate::simd::Level;

/// Items that one mask tells apart, and room that [`bytes`] and [`words`] like to have behind what
/// they write, and [`spread`] behind what it reads.
pub(super) const GROUP: usize = 64;

/// Writes the bytes whose bits are set to the beginning of `out`, and returns how many those are.
pub(super) fn bytes(level: Level, from: &[u8], mask: u64, out: &mut [u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let Some((from, out)) = whole(level, from, out) {
        // SAFETY: the CPU has AVX-512, or these would not be.
        return unsafe { wide::bytes(from, mask, out) };
    }
    plain(from, mask, out)
}

/// Writes the words whose bits are set to the beginning of `out`, and returns how many those are.
pub(super) fn words<W: Word>(level: Level, from: &[W], mask: u64, out: &mut [W]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let Some((from, out)) = whole(level, from, out) {
        // SAFETY: the CPU has AVX-512, or these would not be.
        return unsafe { wide::words(from, mask, out) };
    }
    plain(from, mask, out)
}

/// Writes the first words of `packed` to where bits are set, and returns how many those are.
pub(super) fn spread<W: Word>(level: Level, packed: &[W], mask: u64, out: &mut [W]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if let Some((packed, out)) = whole(level, packed, out) {
        // SAFETY: the CPU has AVX-512, or these would not be.
        return unsafe { wide::spread(packed, mask, out) };
    }
    each(mask, |at, i| out[i] = packed[at])
}

/// A whole group of each, where there is one and `level`, which the CPU must have, is AVX-512.
#[cfg(target_arch = "x86_64")]
fn whole<'a, T>(
    level: Level,
    from: &'a [T],
    out: &'a mut [T],
) -> Option<(&'a [T; GROUP], &'a mut [T; GROUP])> {
    assert!(level <= crate::simd::level());
    if level < Level::Avx512 {
        return None;
    }
    Some((from.first_chunk()?, out.first_chunk_mut()?))
}

fn plain<T: Copy>(from: &[T], mask: u64, out: &mut [T]) -> usize {
    each(mask, |at, i| out[at] = from[i])
}

/// Calls `f` with 0, 1, 2, ... and the places of the bits that are set; returns how many there are.
fn each(mut mask: u64, mut f: impl FnMut(usize, usize)) -> usize {
    let count = mask.count_ones() as usize;
    for at in 0..count {
        f(at, mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
    count
}

/// The same with AVX-512's compressions and expansions. Stores are of whole registers: those under
/// a mask are many times as slow on some CPUs.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m512i, _mm512_loadu_si512, _mm512_mask_expand_epi8, _mm512_mask_expand_epi16,
        _mm512_mask_expand_epi32, _mm512_maskz_compress_epi8, _mm512_maskz_compress_epi16,
        _mm512_maskz_compress_epi32, _mm512_storeu_si512,
    };

    use super::GROUP;
    use crate::Word;

    /// # Safety
    /// The CPU must have what [`crate::simd::Level::Avx512`] stands for.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) unsafe fn bytes(from: &[u8; GROUP], mask: u64, out: &mut [u8; GROUP]) -> usize {
        // SAFETY: both are one register long.
        unsafe {
            let all = _mm512_loadu_si512(from.as_ptr().cast::<__m512i>());
            let some = _mm512_maskz_compress_epi8(mask, all);
            _mm512_storeu_si512(out.as_mut_ptr().cast::<__m512i>(), some);
        }
        mask.count_ones() as usize
    }

    /// # Safety
    /// As [`bytes`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) unsafe fn words<W: Word>(
        from: &[W; GROUP],
        mask: u64,
        out: &mut [W; GROUP],
    ) -> usize {
        let lanes = 512 / W::BITS as usize;
        let mut count = 0;
        for first in (0..GROUP).step_by(lanes) {
            let here = mask >> first & (u64::MAX >> (64 - lanes));
            // SAFETY: a register from `first` on is within `from`; `count` is at most `first`, so
            // one from there on is within `out`.
            unsafe {
                let all = _mm512_loadu_si512(from.as_ptr().add(first).cast::<__m512i>());
                let some = match W::BITS {
                    8 => _mm512_maskz_compress_epi8(here, all),
                    16 => _mm512_maskz_compress_epi16(here as u32, all),
                    _ => _mm512_maskz_compress_epi32(here as u16, all),
                };
                _mm512_storeu_si512(out.as_mut_ptr().add(count).cast::<__m512i>(), some);
            }
            count += here.count_ones() as usize;
        }
        count
    }

    /// # Safety
    /// As [`bytes`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) unsafe fn spread<W: Word>(
        packed: &[W; GROUP],
        mask: u64,
        out: &mut [W; GROUP],
    ) -> usize {
        let lanes = 512 / W::BITS as usize;
        let mut count = 0;
        for first in (0..GROUP).step_by(lanes) {
            let here = mask >> first & (u64::MAX >> (64 - lanes));
            // SAFETY: `count` is at most `first`, so a register from there on is within `packed`;
            // one from `first` on is within `out`.
            unsafe {
                let some = _mm512_loadu_si512(packed.as_ptr().add(count).cast::<__m512i>());
                let place = out.as_mut_ptr().add(first).cast::<__m512i>();
                let old = _mm512_loadu_si512(place.cast_const());
                let all = match W::BITS {
                    8 => _mm512_mask_expand_epi8(old, here, some),
                    16 => _mm512_mask_expand_epi16(old, here as u32, some),
                    _ => _mm512_mask_expand_epi32(old, here as u16, some),
                };
                _mm512_storeu_si512(place, all);
            }
            count += here.count_ones() as usize;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check<W: Word + std::fmt::Debug>(level: Level, len: usize, mask: u64) {
        let mask = mask & (u64::MAX >> (GROUP - len));
        let items: Vec<W> = (0..len as u32).map(|i| W::narrow(1000 + i * 37)).collect();
        let picked: Vec<W> = (0..len)
            .filter(|i| mask >> i & 1 == 1)
            .map(|i| items[i])
            .collect();
        for room in [picked.len(), GROUP] {
            let mut out = vec![W::default(); room.max(picked.len())];
            assert_eq!(words(level, &items, mask, &mut out), picked.len());
            assert_eq!(out[..picked.len()], picked);
            let mut back: Vec<W> = items.iter().map(|_| W::narrow(7)).collect();
            assert_eq!(spread(level, &out, mask, &mut back), picked.len());
            for (i, &word) in back.iter().enumerate() {
                let kept = mask >> i & 1 == 1;
                assert_eq!(word, if kept { items[i] } else { W::narrow(7) });
            }
        }
    }

    proptest! {
        #[test]
        fn every_level_picks_and_puts_back_the_same(mask: u64, len in 1usize..=GROUP, all: bool) {
            let len = if all { GROUP } else { len };
            for level in [Level::Plain, Level::Avx2, Level::Avx512] {
                let level = level.min(crate::simd::level());
                check::<u8>(level, len, mask);
                check::<u16>(level, len, mask);
                check::<u32>(level, len, mask);
                let items: Vec<u8> = (0..len).map(|i| i as u8 * 3).collect();
                let mask = mask & (u64::MAX >> (GROUP - len));
                let mut out = [0; GROUP];
                let count = bytes(level, &items, mask, &mut out);
                let picked = (0..len).filter(|i| mask >> i & 1 == 1).map(|i| items[i]);
                prop_assert_eq!(out[..count].to_vec(), picked.collect::<Vec<_>>());
            }
        }
    }
}
