//! The AVX2 side of [`super::apply`]: finds the weights with low bits or an escape 32 at a time,
//! and reads the low bits of eight weights at once from a running sum of their counts.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadl_epi64, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256,
    _mm256_cmpeq_epi8, _mm256_cmpeq_epi32, _mm256_cvtepu8_epi32, _mm256_extract_epi32,
    _mm256_i32gather_epi32, _mm256_loadu_si256, _mm256_max_epi32, _mm256_max_epu8,
    _mm256_min_epi32, _mm256_movemask_epi8, _mm256_permute2x128_si256, _mm256_set1_epi8,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi32, _mm256_slli_si256,
    _mm256_sllv_epi32, _mm256_srai_epi32, _mm256_srli_epi32, _mm256_srlv_epi32,
    _mm256_storeu_si256, _mm256_sub_epi32,
};

use super::apply::Rule;
use crate::Word;
use crate::bits::BitReader;
use crate::context::UNCHANGED;

/// Bytes that the low bits of 32 weights lie in: 640 bits from any bit of the first byte on, and
/// what the last four-byte read takes beyond.
const WINDOW: usize = 96;

/// Rebuilds whole groups of 32 weights and returns how many weights that was.
///
/// Low bits are rarely all absent or all present, and a branch for each weight or each eight
/// would be mispredicted: a group of 32 with any goes through the general way as a whole.
///
/// # Safety
/// The CPU must have AVX2, BMI1, BMI2, LZCNT and POPCNT, and all slices must have one length.
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) unsafe fn apply<W: Word>(
    rule: &Rule,
    base: &[W],
    symbols: &[u8],
    contexts: &[u8],
    low: &mut BitReader<'_>,
    out: &mut [W],
    escapes: &mut Vec<u32>,
) -> usize {
    let whole = symbols.len() / 32 * 32;
    let first_raw = _mm256_set1_epi8(rule.first_raw as i8);
    let zero = _mm256_setzero_si256();
    let groups = base.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<32>().0);
    let groups = groups.zip(symbols.as_chunks::<32>().0).zip(contexts.as_chunks::<32>().0);
    for (i, (((base, out), symbols), contexts)) in groups.enumerate() {
        // SAFETY: both arrays are 32 bytes long.
        let (symbol, context) = unsafe {
            (
                _mm256_loadu_si256(symbols.as_ptr().cast::<__m256i>()),
                _mm256_loadu_si256(contexts.as_ptr().cast::<__m256i>()),
            )
        };
        let mut escaped = _mm256_movemask_epi8(_mm256_cmpeq_epi8(symbol, zero)) as u32;
        while escaped != 0 {
            escapes.push((32 * i) as u32 + escaped.trailing_zeros());
            escaped &= escaped - 1;
        }
        let raw = _mm256_cmpeq_epi8(_mm256_max_epu8(context, first_raw), context);
        if _mm256_movemask_epi8(raw) == 0 {
            for ((out, &word), &symbol) in out.iter_mut().zip(base).zip(symbols) {
                *out = word.stepped(i32::from(symbol) - i32::from(UNCHANGED), rule.shift());
            }
            continue;
        }
        let Some((bytes, bit)) = low.window(WINDOW) else {
            rule.apply_plain(base, symbols, contexts, low, out, &mut Vec::new());
            continue;
        };
        let mut all = [0i32; 32];
        let mut bits = bit;
        for (k, all) in all.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            // SAFETY: eight bytes from `8 * k` on are within both arrays; `bytes` holds at least
            // `WINDOW` bytes, 20 for each group of eight and 16 more.
            let used = unsafe {
                steps(
                    rule,
                    _mm_loadl_epi64(symbols.as_ptr().add(8 * k).cast::<__m128i>()),
                    _mm_loadl_epi64(contexts.as_ptr().add(8 * k).cast::<__m128i>()),
                    bytes,
                    bits,
                    all,
                )
            };
            bits += used;
        }
        low.skip(bits - bit);
        for ((out, &word), &steps) in out.iter_mut().zip(base).zip(&all) {
            *out = word.stepped(steps, rule.shift());
        }
    }
    whole
}

/// The steps of eight weights; returns how many bits they used from bit `bit` of `bytes` on.
///
/// # Safety
/// The CPU must have AVX2, and `bytes` 24 bytes from the one that `bit` is in.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn steps(rule: &Rule, symbols: __m128i, contexts: __m128i, bytes: &[u8], bit: usize, out: &mut [i32; 8]) -> usize {
    let (from, most) = rule.contexts().low_bits_rule();
    let one = _mm256_set1_epi32(1);
    let zero = _mm256_setzero_si256();
    let symbol = _mm256_cvtepu8_epi32(symbols);
    let context = _mm256_cvtepu8_epi32(contexts);
    let count = _mm256_srai_epi32::<2>(_mm256_sub_epi32(context, _mm256_set1_epi32(from)));
    let count = _mm256_min_epi32(_mm256_max_epi32(count, zero), _mm256_set1_epi32(most));
    // Escapes have no low bits.
    let count = _mm256_andnot_si256(_mm256_cmpeq_epi32(symbol, zero), count);
    // Running sum: within each half, then the first half's total on top of the second.
    let sum = _mm256_add_epi32(count, _mm256_slli_si256::<4>(count));
    let sum = _mm256_add_epi32(sum, _mm256_slli_si256::<8>(sum));
    let half = _mm256_shuffle_epi32::<0xff>(_mm256_permute2x128_si256::<0x08>(sum, sum));
    let sum = _mm256_add_epi32(sum, half);
    let used = _mm256_extract_epi32::<7>(sum) as usize;
    let bits = _mm256_add_epi32(_mm256_sub_epi32(sum, count), _mm256_set1_epi32(bit as i32));
    // SAFETY: counts are at most 20, so the last four bytes read start at most 18 bytes after
    // the one that `bit` is in.
    let raw = unsafe {
        _mm256_i32gather_epi32::<1>(bytes.as_ptr().cast::<i32>(), _mm256_srli_epi32::<3>(bits))
    };
    let raw = _mm256_srlv_epi32(raw, _mm256_and_si256(bits, _mm256_set1_epi32(7)));
    let unit = _mm256_sllv_epi32(one, count);
    let raw = _mm256_and_si256(raw, _mm256_sub_epi32(unit, one));
    let high = _mm256_sub_epi32(symbol, _mm256_set1_epi32(i32::from(UNCHANGED)));
    let steps = _mm256_sub_epi32(
        _mm256_add_epi32(_mm256_sllv_epi32(high, count), raw),
        _mm256_srli_epi32::<1>(unit),
    );
    // SAFETY: `out` is 32 bytes long.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast::<__m256i>(), steps) };
    used
}
