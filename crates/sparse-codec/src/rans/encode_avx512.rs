//! The AVX-512 encoder for 32 lanes: sixteen states in one register, symbols gathered whole, the
//! words of full states compressed.

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_loadu_si128, _mm256_add_epi16, _mm256_maskz_compress_epi16,
    _mm256_permutexvar_epi16, _mm256_set1_epi16, _mm256_setr_epi16, _mm256_storeu_si256,
    _mm512_add_epi32, _mm512_and_si512, _mm512_cmpge_epu32_mask, _mm512_cvtepi32_epi16,
    _mm512_cvtepu8_epi32, _mm512_i64gather_epi64, _mm512_loadu_si512, _mm512_mask_blend_epi32,
    _mm512_mask_srli_epi32, _mm512_mul_epu32, _mm512_mullo_epi32, _mm512_or_si512,
    _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi32,
    _mm512_srli_epi32, _mm512_srli_epi64, _mm512_srlv_epi32, _mm512_storeu_si512, _mm512_sub_epi32,
};

use super::encode::EncodeTables;
use super::{PROB_BITS, PROB_SCALE};

/// Odd lanes.
const ODD: u16 = 0xaaaa;

/// Encodes whole groups of 32 symbols.
///
/// # Safety
/// The CPU must have what [`crate::simd::Level::Avx512`] stands for, and `at`, at most
/// `words.len()`, must be at least the number of symbols and [`super::encode::SLACK`] more.
#[target_feature(
    enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
)]
pub(super) unsafe fn encode(
    tables: &EncodeTables,
    contexts: &[u8],
    symbols: &[u8],
    states: &mut [u32; 32],
    words: &mut [u16],
    at: &mut usize,
) {
    let entries = tables.symbols().as_ptr().cast::<i64>();
    let scale = _mm512_set1_epi32(PROB_SCALE as i32);
    let field = _mm512_set1_epi32(0xfff);
    let even_lanes = _mm512_set1_epi64(0xffff_ffff);
    let lanes = _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let mut x = [_mm512_setzero_si512(); 2];
    for (v, x) in x.iter_mut().enumerate() {
        // SAFETY: `states` has 32 words.
        *x = unsafe { _mm512_loadu_si512(states.as_ptr().add(16 * v).cast::<__m512i>()) };
    }
    let mut left = *at;
    let mut done = symbols.len().min(contexts.len()) / 32 * 32;
    while done > 0 {
        done -= 32;
        for (v, x) in x.iter_mut().enumerate().rev() {
            let place = done + 16 * v;
            // SAFETY: `place + 16` is at most the length of both slices.
            let (context, symbol) = unsafe {
                (
                    _mm_loadu_si128(contexts.as_ptr().add(place).cast::<__m128i>()),
                    _mm_loadu_si128(symbols.as_ptr().add(place).cast::<__m128i>()),
                )
            };
            let index = _mm512_or_si512(
                _mm512_slli_epi32::<8>(_mm512_cvtepu8_epi32(context)),
                _mm512_cvtepu8_epi32(symbol),
            );
            // SAFETY: indices have 16 bits, and there are 2^16 entries of eight bytes.
            let (even, odd) = unsafe {
                (
                    _mm512_i64gather_epi64::<8>(_mm512_and_si512(index, even_lanes), entries),
                    _mm512_i64gather_epi64::<8>(_mm512_srli_epi64::<32>(index), entries),
                )
            };
            let packed = _mm512_mask_blend_epi32(ODD, _mm512_srli_epi64::<32>(even), odd);
            let complement = _mm512_and_si512(packed, field);
            let limit =
                _mm512_slli_epi32::<{ 31 - PROB_BITS }>(_mm512_sub_epi32(scale, complement));
            let full = _mm512_cmpge_epu32_mask(*x, limit);
            let given: __m256i = _mm256_maskz_compress_epi16(full, _mm512_cvtepi32_epi16(*x));
            let count = full.count_ones();
            let before = left;
            left -= count as usize;
            // A whole register is stored, as stores under a mask are slow, with the words at its
            // end: what is before them will be written over.
            let turn = _mm256_add_epi16(lanes, _mm256_set1_epi16(count as i16));
            let given = _mm256_permutexvar_epi16(turn, given);
            // SAFETY: each symbol gives at most one word, so there is room for these below those
            // before, and `SLACK` more.
            unsafe {
                let place = words.as_mut_ptr().add(before - 16);
                _mm256_storeu_si256(place.cast::<__m256i>(), given);
            }
            let kept = _mm512_mask_srli_epi32::<16>(*x, full, *x);
            let product = _mm512_mask_blend_epi32(
                ODD,
                _mm512_srli_epi64::<32>(_mm512_mul_epu32(kept, even)),
                _mm512_mul_epu32(_mm512_srli_epi64::<32>(kept), odd),
            );
            let quotient = _mm512_srlv_epi32(product, _mm512_srli_epi32::<24>(packed));
            let bias = _mm512_and_si512(_mm512_srli_epi32::<12>(packed), field);
            *x = _mm512_add_epi32(
                _mm512_add_epi32(kept, bias),
                _mm512_mullo_epi32(quotient, complement),
            );
        }
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as at the load.
        unsafe { _mm512_storeu_si512(states.as_mut_ptr().add(16 * v).cast::<__m512i>(), *x) };
    }
    *at = left;
}
