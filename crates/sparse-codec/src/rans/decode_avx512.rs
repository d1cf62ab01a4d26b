//! The AVX-512 decoder for 32 lanes: sixteen states in one register, words dealt out by expansion.

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_loadu_si128, _mm_setzero_si128, _mm256_loadu_si256,
    _mm256_set_m128i, _mm256_storeu_si256, _mm512_add_epi32, _mm512_and_si512,
    _mm512_cmplt_epu32_mask, _mm512_cvtepi32_epi8, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32,
    _mm512_i32gather_epi32, _mm512_loadu_si512, _mm512_mask_slli_epi32, _mm512_maskz_expand_epi32,
    _mm512_mullo_epi32, _mm512_or_si512, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_si512,
};

use super::{LOW, PROB_BITS, PROB_SCALE};

/// Registers of states.
const V: usize = 2;

/// Decodes whole groups of 32 symbols while 64 bytes are left to read, and returns how many
/// symbols that were. `each` is called with the place of each group once its symbols are there:
/// the loop waits for gathers, and the CPU has time for it meanwhile.
///
/// # Safety
/// The CPU must have what [`crate::simd::Level::Avx512`] stands for, and every context must be
/// below `entries.len() / PROB_SCALE`.
#[target_feature(
    enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
)]
#[inline]
pub(super) unsafe fn decode(
    entries: &[u32],
    contexts: &[u8],
    symbols: &mut [u8],
    states: &mut [u32; 32],
    words: &mut &[u8],
    mut each: impl FnMut(usize, __m256i),
) -> usize {
    let total = symbols.len().min(contexts.len()) / 32 * 32;
    let low = _mm512_set1_epi32(LOW as i32);
    let slot_mask = _mm512_set1_epi32(PROB_SCALE as i32 - 1);
    let mut x = [_mm512_setzero_si512(); V];
    for (v, x) in x.iter_mut().enumerate() {
        // SAFETY: `states` has 32 words.
        *x = unsafe { _mm512_loadu_si512(states.as_ptr().add(16 * v).cast::<__m512i>()) };
    }
    // The table entries that the states of register `v` stand for, given the group's place.
    let look_up = |x: __m512i, v: usize, group: usize| {
        let at = group + 16 * v;
        // SAFETY: `group + 32 <= total`, which is within the slice.
        let context = unsafe { _mm_loadu_si128(contexts.as_ptr().add(at).cast::<__m128i>()) };
        let table = _mm512_slli_epi32::<PROB_BITS>(_mm512_cvtepu8_epi32(context));
        let index = _mm512_or_si512(table, _mm512_and_si512(x, slot_mask));
        // SAFETY: the context is below the number of tables and the slot below `PROB_SCALE`.
        unsafe { _mm512_i32gather_epi32::<4>(index, entries.as_ptr().cast::<i32>()) }
    };
    if total == 0 {
        return 0;
    }
    let last = total - 32;
    let mut entry = [look_up(x[0], 0, 0), look_up(x[1], 1, 0)];
    let start = words.as_ptr();
    let mut read = 0usize;
    let mut done = 0usize;
    // Each register reads 32 bytes and uses at most as many.
    while done < total && words.len() - read >= 64 {
        let mut symbols_of = [_mm_setzero_si128(); V];
        for ((x, entry), symbol) in x.iter_mut().zip(&entry).zip(&mut symbols_of) {
            let freq = _mm512_and_si512(*entry, slot_mask);
            let bias = _mm512_and_si512(_mm512_srli_epi32::<12>(*entry), slot_mask);
            let next = _mm512_add_epi32(
                _mm512_mullo_epi32(freq, _mm512_srli_epi32::<PROB_BITS>(*x)),
                bias,
            );
            let hungry = _mm512_cmplt_epu32_mask(next, low);
            // SAFETY: at least 64 bytes were left, and the register before this one used at most
            // 32 of them.
            let fresh = unsafe { _mm256_loadu_si256(start.add(read).cast::<__m256i>()) };
            *x = _mm512_or_si512(
                _mm512_mask_slli_epi32::<16>(next, hungry, next),
                _mm512_maskz_expand_epi32(hungry, _mm512_cvtepu16_epi32(fresh)),
            );
            read += 2 * hungry.count_ones() as usize;
            *symbol = _mm512_cvtepi32_epi8(_mm512_srli_epi32::<24>(*entry));
        }
        // The gathers of the next group are under way while `each` rebuilds this one. After the
        // last group they are made for nothing.
        let group = (done + 32).min(last);
        entry = [look_up(x[0], 0, group), look_up(x[1], 1, group)];
        let [first, second] = &mut entry;
        // SAFETY: no instruction; what goes through it is computed before, not put off until it is
        // needed after `each`.
        unsafe {
            std::arch::asm!(
                "/* {0} {1} */",
                inout(zmm_reg) * first,
                inout(zmm_reg) * second,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        let symbol = _mm256_set_m128i(symbols_of[1], symbols_of[0]);
        // SAFETY: `done + 32 <= total <= symbols.len()`.
        unsafe { _mm256_storeu_si256(symbols.as_mut_ptr().add(done).cast::<__m256i>(), symbol) };
        each(done, symbol);
        done += 32;
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as at the load.
        unsafe { _mm512_storeu_si512(states.as_mut_ptr().add(16 * v).cast::<__m512i>(), *x) };
    }
    *words = &words[read..];
    done
}
