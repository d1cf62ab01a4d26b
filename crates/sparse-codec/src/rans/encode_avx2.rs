//! The AVX2 encoder: eight states in one register, reciprocals gathered, the words of full states
//! packed against those written before by a permutation looked up from the comparison mask.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_loadl_epi64, _mm_packus_epi32, _mm_storeu_si128,
    _mm256_add_epi32, _mm256_and_si256, _mm256_blend_epi32, _mm256_blendv_epi8,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmpgt_epi32,
    _mm256_cvtepu8_epi32, _mm256_extracti128_si256, _mm256_i32gather_epi64, _mm256_loadu_si256,
    _mm256_movemask_ps, _mm256_mul_epu32, _mm256_mullo_epi32, _mm256_or_si256,
    _mm256_permute4x64_epi64, _mm256_permutevar8x32_epi32, _mm256_set1_epi32, _mm256_shuffle_ps,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_srli_epi64, _mm256_srlv_epi32,
    _mm256_storeu_si256, _mm256_sub_epi32,
};

use super::encode::EncodeTables;
use super::{PROB_BITS, PROB_SCALE};

/// For each mask of lanes that keep their word: the others' lanes moved to the last places.
static PACK: [[u32; 8]; 256] = {
    let mut pack = [[0u32; 8]; 256];
    let mut mask = 0usize;
    while mask < 256 {
        let mut lane = 8;
        let mut next = 8;
        while lane > 0 {
            lane -= 1;
            if mask >> lane & 1 == 0 {
                next -= 1;
                pack[mask][next] = lane as u32;
            }
        }
        mask += 1;
    }
    pack
};

/// Undoes the order in which shuffles within 128 bits leave eight numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn in_order(numbers: __m256) -> __m256i {
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_castps_si256(numbers))
}

/// Encodes whole groups of `N` symbols, `N` a multiple of 8.
///
/// # Safety
/// The CPU must have what `has_avx2` asks for, and `at`, at most `words.len()`, must be at least the number of
/// symbols and [`super::encode::SLACK`] more.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn encode<const N: usize>(
    tables: &EncodeTables,
    contexts: &[u8],
    symbols: &[u8],
    states: &mut [u32; N],
    words: &mut [u16],
    at: &mut usize,
) {
    let entries = tables.symbols().as_ptr().cast::<i64>();
    let scale = _mm256_set1_epi32(PROB_SCALE as i32);
    let field = _mm256_set1_epi32(0xfff);
    let low_half = _mm256_set1_epi32(0xffff);
    let mut left = *at;
    let mut done = symbols.len().min(contexts.len()) / N * N;
    while done > 0 {
        done -= N;
        for lane in (0..N).step_by(8).rev() {
            let place = done + lane;
            // SAFETY: `place + 8` is at most the length of both slices, `lane + 8` at most `N`.
            let (context, symbol, x) = unsafe {
                (
                    _mm256_cvtepu8_epi32(_mm_loadl_epi64(
                        contexts.as_ptr().add(place).cast::<__m128i>(),
                    )),
                    _mm256_cvtepu8_epi32(_mm_loadl_epi64(
                        symbols.as_ptr().add(place).cast::<__m128i>(),
                    )),
                    _mm256_loadu_si256(states.as_ptr().add(lane).cast::<__m256i>()),
                )
            };
            let index = _mm256_or_si256(_mm256_slli_epi32::<8>(context), symbol);
            // One load for each entry, both its halves at once: loads are what a gather costs.
            // SAFETY: indices have 16 bits, and there are 2^16 entries of eight bytes.
            let (first, second) = unsafe {
                (
                    _mm256_i32gather_epi64::<8>(entries, _mm256_castsi256_si128(index)),
                    _mm256_i32gather_epi64::<8>(entries, _mm256_extracti128_si256::<1>(index)),
                )
            };
            let (first, second) = (_mm256_castsi256_ps(first), _mm256_castsi256_ps(second));
            let reciprocal = in_order(_mm256_shuffle_ps::<0x88>(first, second));
            let packed = in_order(_mm256_shuffle_ps::<0xdd>(first, second));
            let complement = _mm256_and_si256(packed, field);
            let limit =
                _mm256_slli_epi32::<{ 31 - PROB_BITS as i32 }>(_mm256_sub_epi32(scale, complement));
            let keeps = _mm256_cmpgt_epi32(limit, x);
            let mask = _mm256_movemask_ps(_mm256_castsi256_ps(keeps)) as usize;
            // SAFETY: `PACK` has 256 rows of eight words.
            let pack = unsafe { _mm256_loadu_si256(PACK[mask].as_ptr().cast::<__m256i>()) };
            let given = _mm256_permutevar8x32_epi32(_mm256_and_si256(x, low_half), pack);
            let given = _mm_packus_epi32(
                _mm256_castsi256_si128(given),
                _mm256_extracti128_si256::<1>(given),
            );
            // SAFETY: each symbol before this one gave at most one word, so that at least eight
            // are left; those beyond the words given are written again.
            unsafe {
                _mm_storeu_si128(words.as_mut_ptr().add(left - 8).cast::<__m128i>(), given);
            }
            left -= 8 - mask.count_ones() as usize;
            let x = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(x), x, keeps);
            let even = _mm256_srli_epi64::<32>(_mm256_mul_epu32(x, reciprocal));
            let odd = _mm256_mul_epu32(
                _mm256_srli_epi64::<32>(x),
                _mm256_srli_epi64::<32>(reciprocal),
            );
            let product = _mm256_blend_epi32::<0xaa>(even, odd);
            let quotient = _mm256_srlv_epi32(product, _mm256_srli_epi32::<24>(packed));
            let bias = _mm256_and_si256(_mm256_srli_epi32::<12>(packed), field);
            let next = _mm256_add_epi32(
                _mm256_add_epi32(x, bias),
                _mm256_mullo_epi32(quotient, complement),
            );
            // SAFETY: as at the load.
            unsafe { _mm256_storeu_si256(states.as_mut_ptr().add(lane).cast::<__m256i>(), next) };
        }
    }
    *at = left;
}
