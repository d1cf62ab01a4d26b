//! The AVX2 decoder: eight states in one register, table entries gathered, words dealt out to
//! the lanes that need one by a permutation looked up from the comparison mask.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm_packus_epi16, _mm_packus_epi32,
    _mm_storel_epi64, _mm256_add_epi32, _mm256_and_si256, _mm256_blendv_epi8, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmpgt_epi32, _mm256_cvtepu8_epi32, _mm256_cvtepu16_epi32,
    _mm256_extracti128_si256, _mm256_i32gather_epi32, _mm256_loadu_si256, _mm256_movemask_ps,
    _mm256_mullo_epi32, _mm256_or_si256, _mm256_permutevar8x32_epi32, _mm256_set1_epi32,
    _mm256_slli_epi32, _mm256_srli_epi32, _mm256_storeu_si256,
};

use super::{LOW, PROB_BITS, PROB_SCALE};

/// For each mask of lanes that take a word: which of the next words each lane takes.
static DEAL: [[u32; 8]; 256] = {
    let mut deal = [[0u32; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let mut lane = 0;
        let mut next = 0;
        while lane < 8 {
            if mask >> lane & 1 == 1 {
                deal[mask][lane] = next;
                next += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    deal
};

/// Decodes whole groups of `8 * V` symbols while 16 bytes a register are left to read, and
/// returns how many symbols that were.
///
/// # Safety
/// The CPU must have what `has_avx2` asks for, and every context must be below
/// `entries.len() / PROB_SCALE`.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn decode<const V: usize>(
    entries: &[u32],
    contexts: &[u8],
    symbols: &mut [u8],
    states: &mut [u32; 32],
    words: &mut &[u8],
) -> usize {
    let group = 8 * V;
    let total = symbols.len().min(contexts.len()) / group * group;
    let low = _mm256_set1_epi32(LOW as i32);
    let slot_mask = _mm256_set1_epi32(PROB_SCALE as i32 - 1);
    let mut x = [_mm256_set1_epi32(0); V];
    for (v, x) in x.iter_mut().enumerate() {
        // SAFETY: `states` has 32 words and `V` is at most 4.
        *x = unsafe { _mm256_loadu_si256(states.as_ptr().add(8 * v).cast::<__m256i>()) };
    }
    let start = words.as_ptr();
    let mut read = 0usize;
    let mut done = 0usize;
    // Each register reads 16 bytes and uses at most as many.
    while done < total && words.len() - read >= 16 * V {
        for (v, x) in x.iter_mut().enumerate() {
            let at = done + 8 * v;
            // SAFETY: `at + 8 <= total`, which is within both slices.
            let context = unsafe {
                _mm256_cvtepu8_epi32(_mm_loadl_epi64(contexts.as_ptr().add(at).cast::<__m128i>()))
            };
            let index = _mm256_or_si256(
                _mm256_slli_epi32::<{ PROB_BITS as i32 }>(context),
                _mm256_and_si256(*x, slot_mask),
            );
            // SAFETY: the context is below the number of tables and the slot below
            // `PROB_SCALE`.
            let entry =
                unsafe { _mm256_i32gather_epi32::<4>(entries.as_ptr().cast::<i32>(), index) };
            let freq = _mm256_and_si256(entry, slot_mask);
            let bias = _mm256_and_si256(_mm256_srli_epi32::<12>(entry), slot_mask);
            let next = _mm256_add_epi32(
                _mm256_mullo_epi32(freq, _mm256_srli_epi32::<{ PROB_BITS as i32 }>(*x)),
                bias,
            );
            let hungry = _mm256_cmpgt_epi32(low, next);
            let mask = _mm256_movemask_ps(_mm256_castsi256_ps(hungry)) as usize;
            // SAFETY: at least 16 * V bytes were left, and each register before this one used at
            // most 16 of them; `DEAL` has 256 rows of 8 words.
            let (fresh, deal) = unsafe {
                (
                    _mm256_cvtepu16_epi32(_mm_loadu_si128(start.add(read).cast::<__m128i>())),
                    _mm256_loadu_si256(DEAL[mask].as_ptr().cast::<__m256i>()),
                )
            };
            let refilled = _mm256_or_si256(
                _mm256_slli_epi32::<16>(next),
                _mm256_permutevar8x32_epi32(fresh, deal),
            );
            *x = _mm256_blendv_epi8(next, refilled, hungry);
            read += 2 * mask.count_ones() as usize;
            let symbol = _mm256_srli_epi32::<24>(entry);
            let half = _mm_packus_epi32(
                _mm256_castsi256_si128(symbol),
                _mm256_extracti128_si256::<1>(symbol),
            );
            // SAFETY: `at + 8 <= total <= symbols.len()`.
            unsafe {
                _mm_storel_epi64(
                    symbols.as_mut_ptr().add(at).cast::<__m128i>(),
                    _mm_packus_epi16(half, half),
                );
            }
        }
        done += group;
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as at the load.
        unsafe { _mm256_storeu_si256(states.as_mut_ptr().add(8 * v).cast::<__m256i>(), *x) };
    }
    *words = &words[read..];
    done
}
