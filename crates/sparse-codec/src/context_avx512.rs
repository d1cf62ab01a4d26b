//! The AVX-512 side of [`super::context`]: contexts of 32 words of 16 bits at a time.

use std::arch::x86_64::{
    __m256i, __m512i, _mm_cvtsi32_si128, _mm256_min_epu8, _mm256_set1_epi8, _mm256_storeu_si256,
    _mm512_and_si512, _mm512_cvtusepi16_epi8, _mm512_loadu_si512, _mm512_max_epi16,
    _mm512_max_epu16, _mm512_set1_epi16, _mm512_setzero_si512, _mm512_slli_epi16, _mm512_srl_epi16,
    _mm512_sub_epi16,
};

use crate::Word;

/// The contexts of whole groups of 32 words that share one scale, at most `top`; returns how many
/// words that was.
///
/// # Safety
/// The CPU must have what [`crate::simd::Level::Avx512`] stands for, and the words must have 16
/// bits.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
pub(crate) unsafe fn fill_row<W: Word>(
    mantissa: u32,
    base: &[W],
    scale: i16,
    top: u8,
    out: &mut [u8],
) -> usize {
    let mantissa = _mm_cvtsi32_si128(mantissa as i32);
    let (scale, top) = (_mm512_set1_epi16(scale), _mm256_set1_epi8(top as i8));
    let groups = base.as_chunks::<32>().0.iter();
    let mut done = 0;
    for (words, out) in groups.zip(out.as_chunks_mut::<32>().0) {
        // SAFETY: 32 words of 16 bits are as long as a register.
        let words = unsafe { _mm512_loadu_si512(words.as_ptr().cast::<__m512i>()) };
        let magnitude = _mm512_and_si512(words, _mm512_set1_epi16(0x7fff));
        let exponent = _mm512_srl_epi16(magnitude, mantissa);
        let exponent = _mm512_max_epu16(exponent, _mm512_set1_epi16(1));
        let context = _mm512_sub_epi16(scale, _mm512_slli_epi16::<2>(exponent));
        let context = _mm512_max_epi16(context, _mm512_setzero_si512());
        let context = _mm256_min_epu8(_mm512_cvtusepi16_epi8(context), top);
        // SAFETY: 32 bytes are as long as half a register.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast::<__m256i>(), context) };
        done += 32;
    }
    done
}
