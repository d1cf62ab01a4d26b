//! The AVX2 side of [`super::apply`]: finds the weights with low bits or an escape 32 at a time,
//! and reads the low bits of eight weights at once from a running sum of their counts.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadl_epi64, _mm_set1_epi64x, _mm256_add_epi32, _mm256_and_si256,
    _mm256_andnot_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8, _mm256_cmpeq_epi32,
    _mm256_cvtepu8_epi32, _mm256_extract_epi32, _mm256_i32gather_epi32, _mm256_loadu_si256,
    _mm256_max_epi32, _mm256_max_epu8, _mm256_min_epi32, _mm256_min_epu8, _mm256_movemask_epi8,
    _mm256_permute2x128_si256, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_shuffle_epi32, _mm256_slli_si256, _mm256_sllv_epi32,
    _mm256_srai_epi32, _mm256_srli_epi16, _mm256_srli_epi32, _mm256_srlv_epi32,
    _mm256_storeu_si256, _mm256_sub_epi32, _mm256_subs_epu8, _pdep_u64,
};

use super::apply::Rule;
use crate::Word;
use crate::bits::{BitReader, WINDOW};
use crate::context::UNCHANGED;

/// Rebuilds whole groups of 32 weights and returns how many weights that was.
///
/// # Safety
/// The CPU must have AVX2, BMI1, BMI2, LZCNT and POPCNT.
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
    let groups = base
        .as_chunks::<32>()
        .0
        .iter()
        .zip(out.as_chunks_mut::<32>().0);
    let groups = groups
        .zip(symbols.as_chunks::<32>().0)
        .zip(contexts.as_chunks::<32>().0);
    let mut done = 0;
    for (((base, out), symbols), contexts) in groups {
        // SAFETY: the array is 32 bytes long.
        let symbols = unsafe { _mm256_loadu_si256(symbols.as_ptr().cast::<__m256i>()) };
        let escaped = group(rule, base, symbols, contexts, low, out);
        push(escaped, done, escapes);
        done += 32;
    }
    done
}

/// Adds the places of a mask's bits, of which the first is that of weight number `at`.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
pub(super) fn push(mut mask: u32, at: usize, places: &mut Vec<u32>) {
    while mask != 0 {
        places.push(at as u32 + mask.trailing_zeros());
        mask &= mask - 1;
    }
}

/// Rebuilds 32 weights; returns which of them are escapes.
///
/// Low bits are rarely all absent or all present, and a branch for each weight or each eight
/// would be mispredicted: a group of 32 with any goes through the general way as a whole.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
#[allow(clippy::too_many_arguments)]
pub(super) fn group<W: Word>(
    rule: &Rule,
    base: &[W; 32],
    symbol: __m256i,
    contexts: &[u8; 32],
    low: &mut BitReader<'_>,
    out: &mut [W; 32],
) -> u32 {
    let first_raw = _mm256_set1_epi8(rule.first_raw as i8);
    let zero = _mm256_setzero_si256();
    // Where low bits are few, they fit a byte each and 16-bit arithmetic.
    let narrow = rule.contexts().low_bits_rule().1 <= 7;
    let powers = _mm256_broadcastsi128_si256(_mm_set1_epi64x(i64::from_le_bytes([
        1,
        2,
        4,
        8,
        16,
        32,
        64,
        -128i8 as u8,
    ])));
    let mut symbols = [0u8; 32];
    // SAFETY: both arrays are 32 bytes long.
    let context = unsafe {
        _mm256_storeu_si256(symbols.as_mut_ptr().cast::<__m256i>(), symbol);
        _mm256_loadu_si256(contexts.as_ptr().cast::<__m256i>())
    };
    let escaped = _mm256_movemask_epi8(_mm256_cmpeq_epi8(symbol, zero)) as u32;
    let raw = _mm256_cmpeq_epi8(_mm256_max_epu8(context, first_raw), context);
    if _mm256_movemask_epi8(raw) == 0 {
        for ((out, &word), &symbol) in out.iter_mut().zip(base).zip(&symbols) {
            *out = word.stepped(i32::from(symbol) - i32::from(UNCHANGED), rule.shift());
        }
        return escaped;
    }
    let (bytes, bit) = low.window();
    if narrow {
        let mut units = [0u8; 32];
        let mut rests = [0u8; 32];
        let count = counts(symbol, context, rule);
        // SAFETY: both arrays are 32 bytes long.
        unsafe {
            let unit = _mm256_shuffle_epi8(powers, count);
            _mm256_storeu_si256(units.as_mut_ptr().cast::<__m256i>(), unit);
        }
        let used = spread(bytes, bit, &units, &mut rests);
        low.skip(used);
        let parts = symbols.iter().zip(&units).zip(&rests);
        for ((out, &word), ((&symbol, &unit), &rest)) in out.iter_mut().zip(base).zip(parts) {
            let unit = i16::from(unit);
            let high = (i16::from(symbol) - i16::from(UNCHANGED)) * unit;
            let steps = high + i16::from(rest) - (unit >> 1);
            *out = word.stepped(i32::from(steps), rule.shift());
        }
        return escaped;
    }
    let mut all = [0i32; 32];
    let mut bits = bit;
    for (k, all) in all.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        // SAFETY: eight bytes from `8 * k` on are within both arrays; `bytes` holds 20 bytes
        // for each group of eight and 16 more.
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
    escaped
}

/// How many low bits each of 32 weights has; none where the symbol is an escape.
#[inline]
#[target_feature(enable = "avx2")]
fn counts(symbol: __m256i, context: __m256i, rule: &Rule) -> __m256i {
    let (from, most) = rule.contexts().low_bits_rule();
    let above = _mm256_subs_epu8(context, _mm256_set1_epi8(from as i8));
    // Bits of the neighbour come in from above when bytes are shifted as words.
    let count = _mm256_and_si256(_mm256_srli_epi16::<2>(above), _mm256_set1_epi8(0x3f));
    let count = _mm256_min_epu8(count, _mm256_set1_epi8(most as i8));
    _mm256_andnot_si256(_mm256_cmpeq_epi8(symbol, _mm256_setzero_si256()), count)
}

/// Deals out bits from bit `bit` of `bytes` on: `log2` of its unit, at most 7, to each weight.
/// Returns how many bits that were.
#[inline]
#[target_feature(enable = "bmi1,bmi2,popcnt")]
fn spread(bytes: &[u8; WINDOW], bit: usize, units: &[u8; 32], rests: &mut [u8; 32]) -> usize {
    let mut at = bit;
    let parts = rests
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip(units.as_chunks::<8>().0);
    for (rests, units) in parts {
        // A unit less one in each byte; units are at least 1, so nothing is borrowed.
        let mask = u64::from_le_bytes(*units) - 0x0101_0101_0101_0101;
        let mut eight = [0u8; 8];
        eight.copy_from_slice(&bytes[at / 8..at / 8 + 8]);
        // At most 56 bits are asked for, and at least 57 are there.
        *rests = _pdep_u64(u64::from_le_bytes(eight) >> (at % 8), mask).to_le_bytes();
        at += mask.count_ones() as usize;
    }
    at - bit
}

/// The steps of eight weights; returns how many bits they used from bit `bit` of `bytes` on.
///
/// # Safety
/// The CPU must have AVX2, and `bytes` hold 24 bytes from the one that `bit` is in.
#[inline]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn steps(
    rule: &Rule,
    symbols: __m128i,
    contexts: __m128i,
    bytes: &[u8; WINDOW],
    bit: usize,
    out: &mut [i32; 8],
) -> usize {
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
