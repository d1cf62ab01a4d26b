//! The AVX2 decoder: eight states in one register, table entries gathered, words dealt out to
//! the lanes that need one by a permutation looked up from the comparison mask.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm_packus_epi16, _mm_packus_epi32,
    _mm_storel_epi64, _mm256_add_epi32, _mm256_and_si256, _mm256_blendv_epi8, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_cmpgt_epi32, _mm256_cvtepu8_epi32, _mm256_cvtepu16_epi32,
    _mm256_extracti128_si256, _mm256_i32gather_epi32, _mm256_loadu_si256, _mm256_movemask_ps,
    _mm256_mullo_epi32, _mm256_or_si256, _mm256_packus_epi16, _mm256_packus_epi32,
    _mm256_permutevar8x32_epi32, _mm256_set1_epi32, _mm256_setr_epi32, _mm256_slli_epi32,
    _mm256_srli_epi32, _mm256_storeu_si256,
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

/// The table entries that eight states stand for.
///
/// # Safety
/// The CPU must have what `has_avx2` asks for; eight contexts must be readable, each below
/// `entries.len() / PROB_SCALE`.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn look_up(entries: &[u32], contexts: *const u8, x: __m256i) -> __m256i {
    // SAFETY: the caller vouches for eight contexts.
    let context = unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(contexts.cast::<__m128i>())) };
    let index = _mm256_or_si256(
        _mm256_slli_epi32::<{ PROB_BITS as i32 }>(context),
        _mm256_and_si256(x, _mm256_set1_epi32(PROB_SCALE as i32 - 1)),
    );
    // SAFETY: the context is below the number of tables and the slot below `PROB_SCALE`.
    unsafe { _mm256_i32gather_epi32::<4>(entries.as_ptr().cast::<i32>(), index) }
}

/// One symbol of each of eight states, given their entries: the states after it, the symbols, and
/// how many bytes of `fresh` they took.
///
/// # Safety
/// The CPU must have what `has_avx2` asks for; 16 bytes from `fresh` on must be readable.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn step(entry: __m256i, fresh: *const u8, x: __m256i) -> (__m256i, __m256i, usize) {
    let low = _mm256_set1_epi32(LOW as i32);
    let slot_mask = _mm256_set1_epi32(PROB_SCALE as i32 - 1);
    let freq = _mm256_and_si256(entry, slot_mask);
    let bias = _mm256_and_si256(_mm256_srli_epi32::<12>(entry), slot_mask);
    let next = _mm256_add_epi32(
        _mm256_mullo_epi32(freq, _mm256_srli_epi32::<{ PROB_BITS as i32 }>(x)),
        bias,
    );
    let hungry = _mm256_cmpgt_epi32(low, next);
    let mask = _mm256_movemask_ps(_mm256_castsi256_ps(hungry)) as usize;
    // SAFETY: the caller vouches for 16 bytes; `DEAL` has 256 rows of 8 words.
    let (fresh, deal) = unsafe {
        (
            _mm256_cvtepu16_epi32(_mm_loadu_si128(fresh.cast::<__m128i>())),
            _mm256_loadu_si256(DEAL[mask].as_ptr().cast::<__m256i>()),
        )
    };
    let refilled = _mm256_or_si256(
        _mm256_slli_epi32::<16>(next),
        _mm256_permutevar8x32_epi32(fresh, deal),
    );
    (
        _mm256_blendv_epi8(next, refilled, hungry),
        _mm256_srli_epi32::<24>(entry),
        2 * mask.count_ones() as usize,
    )
}

/// Decodes whole groups of eight symbols for eight lanes while 16 bytes are left to read, and
/// returns how many symbols that were.
///
/// # Safety
/// The CPU must have what `has_avx2` asks for, and every context must be below
/// `entries.len() / PROB_SCALE`.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn decode_8(
    entries: &[u32],
    contexts: &[u8],
    symbols: &mut [u8],
    states: &mut [u32; 32],
    words: &mut &[u8],
) -> usize {
    let total = symbols.len().min(contexts.len()) / 8 * 8;
    // SAFETY: there are 32 states.
    let mut x = unsafe { _mm256_loadu_si256(states.as_ptr().cast::<__m256i>()) };
    let (mut read, mut done) = (0, 0);
    while done < total && words.len() - read >= 16 {
        // SAFETY: `done + 8 <= total`, within both slices, and 16 bytes are left.
        unsafe {
            let (contexts, fresh) = (contexts.as_ptr().add(done), words.as_ptr().add(read));
            let (next, symbol, used) = step(look_up(entries, contexts, x), fresh, x);
            let half = _mm_packus_epi32(
                _mm256_castsi256_si128(symbol),
                _mm256_extracti128_si256::<1>(symbol),
            );
            let place = symbols.as_mut_ptr().add(done).cast::<__m128i>();
            _mm_storel_epi64(place, _mm_packus_epi16(half, half));
            x = next;
            read += used;
        }
        done += 8;
    }
    // SAFETY: there are 32 states.
    unsafe { _mm256_storeu_si256(states.as_mut_ptr().cast::<__m256i>(), x) };
    *words = &words[read..];
    done
}

/// Decodes whole groups of 32 symbols for 32 lanes while 64 bytes are left to read, and returns how
/// many symbols that were. `each` is called with the place of each group once its symbols are
/// there: the loop waits for gathers, and the CPU has time for it meanwhile.
///
/// # Safety
/// As for [`decode_8`].
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[inline]
pub(super) unsafe fn decode_32(
    entries: &[u32],
    contexts: &[u8],
    symbols: &mut [u8],
    states: &mut [u32; 32],
    words: &mut &[u8],
    mut each: impl FnMut(usize, __m256i),
) -> usize {
    let total = symbols.len().min(contexts.len()) / 32 * 32;
    let mut x = [_mm256_set1_epi32(0); 4];
    for (v, x) in x.iter_mut().enumerate() {
        // SAFETY: there are 32 states.
        *x = unsafe { _mm256_loadu_si256(states.as_ptr().add(8 * v).cast::<__m256i>()) };
    }
    if total == 0 {
        return 0;
    }
    // SAFETY: groups start at `total - 32` at most.
    let entries_of = |x: &[__m256i; 4], group: usize| unsafe {
        let contexts = contexts.as_ptr().add(group);
        [
            look_up(entries, contexts, x[0]),
            look_up(entries, contexts.add(8), x[1]),
            look_up(entries, contexts.add(16), x[2]),
            look_up(entries, contexts.add(24), x[3]),
        ]
    };
    let mut entry = entries_of(&x, 0);
    let (mut read, mut done) = (0, 0);
    // Each register reads 16 bytes and uses at most as many.
    while done < total && words.len() - read >= 64 {
        let mut fours = [_mm256_set1_epi32(0); 4];
        for ((x, entry), four) in x.iter_mut().zip(entry).zip(&mut fours) {
            let used;
            // SAFETY: at least 64 bytes were left, and each register before this one used at most
            // 16 of them.
            (*x, *four, used) = unsafe { step(entry, words.as_ptr().add(read), *x) };
            read += used;
        }
        // The gathers of the next group are under way while `each` rebuilds this one. After the
        // last group they are made for nothing.
        entry = entries_of(&x, (done + 32).min(total - 32));
        let [first, second, third, fourth] = &mut entry;
        // SAFETY: no instruction; what goes through it is computed before, not put off until it is
        // needed after `each`.
        unsafe {
            std::arch::asm!(
                "/* {0} {1} {2} {3} */",
                inout(ymm_reg) * first,
                inout(ymm_reg) * second,
                inout(ymm_reg) * third,
                inout(ymm_reg) * fourth,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        let pairs = _mm256_packus_epi16(
            _mm256_packus_epi32(fours[0], fours[1]),
            _mm256_packus_epi32(fours[2], fours[3]),
        );
        // Packing works within 128 bits: the halves of each register come one after the other.
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let symbol = _mm256_permutevar8x32_epi32(pairs, order);
        // SAFETY: `done + 32 <= total <= symbols.len()`.
        unsafe {
            _mm256_storeu_si256(symbols.as_mut_ptr().add(done).cast::<__m256i>(), symbol);
        }
        each(done, symbol);
        done += 32;
    }
    for (v, x) in x.iter().enumerate() {
        // SAFETY: as at the load.
        unsafe { _mm256_storeu_si256(states.as_mut_ptr().add(8 * v).cast::<__m256i>(), *x) };
    }
    *words = &words[read..];
    done
}
