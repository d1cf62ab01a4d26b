//! Comparisons of 64 bytes at once, as the bits of one word.

use crate::Word;
use crate::context::UNCHANGED;
use crate::simd::vectorised;

/// Which of up to 64 bytes are at least `least`.
pub(super) fn at_least(bytes: &[u8], least: u8) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if let Some(bytes) = bytes.first_chunk::<64>()
        && crate::simd::has_avx2()
    {
        // SAFETY: the features were just detected.
        return unsafe { wide(bytes, least) };
    }
    plain(bytes, least)
}

vectorised! {
    fn plain(bytes: &[u8], least: u8) -> u64 {
        bytes.iter().enumerate().fold(0, |mask, (i, &c)| mask | u64::from(c >= least) << i)
    }
}

/// Which of up to 64 words differ.
pub(super) fn changed<W: Word>(base: &[W], fine: &[W]) -> u64 {
    let mut differ = [0; 64];
    let differ = &mut differ[..base.len()];
    differences(base, fine, differ);
    at_least(differ, 1)
}

vectorised! {
    fn differences<W: Word>(base: &[W], fine: &[W], out: &mut [u8]) {
        for ((out, base), fine) in out.iter_mut().zip(base).zip(fine) {
            *out = u8::from(base != fine);
        }
    }
}

/// Which of 64 bytes are at least `least`.
///
/// # Safety
/// The CPU must have AVX2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn wide(bytes: &[u8; 64], least: u8) -> u64 {
    use std::arch::x86_64::{
        __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_max_epu8, _mm256_movemask_epi8,
        _mm256_set1_epi8,
    };
    let least = _mm256_set1_epi8(least as i8);
    let half = |at: usize| {
        // SAFETY: `at` is 0 or 32, and 64 bytes are there.
        let some = unsafe { _mm256_loadu_si256(bytes.as_ptr().add(at).cast::<__m256i>()) };
        let mask = _mm256_cmpeq_epi8(_mm256_max_epu8(some, least), some);
        u64::from(_mm256_movemask_epi8(mask) as u32)
    };
    half(0) | half(32) << 32
}

/// Which of up to 64 symbols are farther from [`UNCHANGED`] than their context reaches.
pub(super) fn beyond(contexts: &[u8], symbols: &[u8], reaches: &[u8; 256]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if let (Some(contexts), Some(symbols)) = (contexts.first_chunk(), symbols.first_chunk())
        && crate::simd::level() == crate::simd::Level::Avx512
    {
        // SAFETY: the features were just detected.
        return unsafe { widest_beyond(contexts, symbols, reaches) };
    }
    plain_beyond(contexts, symbols, reaches)
}

fn plain_beyond(contexts: &[u8], symbols: &[u8], reaches: &[u8; 256]) -> u64 {
    let pairs = contexts.iter().zip(symbols).enumerate();
    pairs.fold(0, |mask, (i, (&context, &symbol))| {
        let far = symbol.abs_diff(UNCHANGED) > reaches[usize::from(context)];
        mask | u64::from(far) << i
    })
}

/// As [`beyond`].
///
/// # Safety
/// The CPU must have what [`crate::simd::Level::Avx512`] stands for.
#[cfg(target_arch = "x86_64")]
#[target_feature(
    enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
)]
unsafe fn widest_beyond(contexts: &[u8; 64], symbols: &[u8; 64], reaches: &[u8; 256]) -> u64 {
    use std::arch::x86_64::{
        __m512i, _mm512_abs_epi8, _mm512_cmpgt_epu8_mask, _mm512_loadu_si512,
        _mm512_mask_blend_epi8, _mm512_movepi8_mask, _mm512_permutex2var_epi8, _mm512_set1_epi8,
        _mm512_sub_epi8,
    };
    // SAFETY: each is 64 bytes, as long as a register.
    let load = |bytes: &[u8; 64]| unsafe { _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>()) };
    let parts = reaches.as_chunks::<64>().0;
    let (contexts, symbols) = (load(contexts), load(symbols));
    let low = _mm512_permutex2var_epi8(load(&parts[0]), contexts, load(&parts[1]));
    let high = _mm512_permutex2var_epi8(load(&parts[2]), contexts, load(&parts[3]));
    let reach = _mm512_mask_blend_epi8(_mm512_movepi8_mask(contexts), low, high);
    let unchanged = _mm512_set1_epi8(UNCHANGED as i8);
    let distance = _mm512_abs_epi8(_mm512_sub_epi8(symbols, unchanged));
    _mm512_cmpgt_epu8_mask(distance, reach)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_beyond_their_reach_are_found_alike() {
        let reaches: [u8; 256] = std::array::from_fn(|i| (i * 89 % 121) as u8);
        for shift in 0..40 {
            let contexts: [u8; 64] = std::array::from_fn(|i| (i * 53 + shift * 7) as u8);
            let symbols: [u8; 64] = std::array::from_fn(|i| ((i * 31 + shift * 3) % 242) as u8);
            assert_eq!(
                beyond(&contexts, &symbols, &reaches),
                plain_beyond(&contexts, &symbols, &reaches)
            );
        }
    }

    #[test]
    fn masks_agree() {
        let bytes: [u8; 64] = std::array::from_fn(|i| (i * 37 % 256) as u8);
        for least in 0..=255 {
            assert_eq!(at_least(&bytes, least), plain(&bytes, least));
        }
        let base: [u16; 64] = std::array::from_fn(|i| i as u16 * 1000);
        let fine: [u16; 64] = std::array::from_fn(|i| i as u16 * 1000 + u16::from(i % 3 == 1));
        for len in [0, 1, 63, 64] {
            let mask = changed(&base[..len], &fine[..len]);
            for i in 0..64 {
                assert_eq!(mask >> i & 1 == 1, i < len && i % 3 == 1);
            }
        }
    }
}
