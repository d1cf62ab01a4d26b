//! The AVX-512 side of [`super::apply`]: 32 weights of 16 bits or 16 of 32 are one register, and
//! their low bits are picked from 64 bytes by a permutation.

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_cvtsi32_si128, _mm_set1_epi8, _mm_subs_epu8, _mm_test_epi8_mask,
    _mm256_add_epi8, _mm256_add_epi16, _mm256_add_epi64, _mm256_and_si256, _mm256_castsi256_si128,
    _mm256_cvtepu8_epi16, _mm256_extract_epi64, _mm256_extracti128_si256, _mm256_loadu_si256,
    _mm256_maskz_min_epu8, _mm256_maskz_min_epu16, _mm256_maskz_permutex_epi64, _mm256_mullo_epi64,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi64x, _mm256_srli_epi16, _mm256_srli_epi64,
    _mm256_sub_epi8, _mm256_sub_epi16, _mm256_sub_epi64, _mm256_subs_epu8, _mm256_test_epi8_mask,
    _mm256_testn_epi8_mask, _mm512_add_epi16, _mm512_add_epi32, _mm512_and_si512,
    _mm512_cvtepu8_epi16, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_loadu_si512,
    _mm512_mullo_epi16, _mm512_permutexvar_epi8, _mm512_set1_epi16, _mm512_set1_epi32,
    _mm512_set1_epi64, _mm512_shuffle_epi8, _mm512_sll_epi32, _mm512_sllv_epi16, _mm512_sllv_epi32,
    _mm512_sra_epi32, _mm512_srai_epi32, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_srlv_epi16,
    _mm512_srlv_epi32, _mm512_storeu_si512, _mm512_sub_epi16, _mm512_sub_epi32,
    _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::apply::Rule;
use crate::Word;
use crate::bits::BitReader;
use crate::context::UNCHANGED;
use crate::simd::stepped_avx512;

/// As [`super::apply_avx2::group`].
#[inline]
#[target_feature(
    enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
)]
pub(super) fn group<W: Word>(
    rule: &Rule,
    base: &[W; 32],
    symbol: __m256i,
    contexts: &[u8; 32],
    low: &mut BitReader<'_>,
    out: &mut [W; 32],
) -> u32 {
    // SAFETY: the contexts are 32 bytes.
    let context = unsafe { _mm256_loadu_si256(contexts.as_ptr().cast::<__m256i>()) };
    match W::BITS {
        16 => {
            // SAFETY: 32 words of 16 bits are 64 bytes, as the register is.
            let base = unsafe { _mm512_loadu_si512(base.as_ptr().cast::<__m512i>()) };
            let word = match rule.shift() {
                0 => halves::<false>(rule, base, symbol, context, low),
                _ => halves::<true>(rule, base, symbol, context, low),
            };
            // SAFETY: as at the load.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast::<__m512i>(), word) };
        }
        32 => {
            let symbols = [
                _mm256_castsi256_si128(symbol),
                _mm256_extracti128_si256::<1>(symbol),
            ];
            let contexts = [
                _mm256_castsi256_si128(context),
                _mm256_extracti128_si256::<1>(context),
            ];
            for (part, (symbol, context)) in symbols.into_iter().zip(contexts).enumerate() {
                // SAFETY: 32 words of 32 bits are twice 64 bytes.
                let base = unsafe { _mm512_loadu_si512(base.as_ptr().add(16 * part).cast()) };
                let word = singles(rule, base, symbol, context, low);
                // SAFETY: as at the load.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(16 * part).cast(), word) };
            }
        }
        _ => return super::apply_avx2::group(rule, base, symbol, contexts, low, out),
    }
    _mm256_testn_epi8_mask(symbol, symbol)
}

/// Rebuilds 32 weights of 16 bits, which have at most seven low bits; `SHIFTED` says whether they
/// have zero bits.
#[inline]
#[target_feature(
    enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
)]
fn halves<const SHIFTED: bool>(
    rule: &Rule,
    base: __m512i,
    symbol: __m256i,
    context: __m256i,
    low: &mut BitReader<'_>,
) -> __m512i {
    let (from, most) = rule.contexts().low_bits_rule();
    let known = _mm256_test_epi8_mask(symbol, symbol);
    // Bits of the neighbour come in from above when bytes are shifted as words.
    let above = _mm256_subs_epu8(context, _mm256_set1_epi8(from as i8));
    let count = _mm256_and_si256(_mm256_srli_epi16::<2>(above), _mm256_set1_epi8(0x3f));
    let count = _mm256_maskz_min_epu8(known, count, _mm256_set1_epi8(most as i8));

    let (bytes, bit) = low.window();
    // SAFETY: the window is longer than 64 bytes.
    let bytes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>()) };
    // Running sums: of eight counts by a multiplication, then of the four eights; at most
    // 7 * 32 + 7 in a byte.
    let ones = _mm256_set1_epi64x(0x0101_0101_0101_0101);
    let within = _mm256_mullo_epi64(count, ones);
    let total = _mm256_srli_epi64::<56>(within);
    let (before, all) = before_each(total);
    low.skip(all);
    let before = _mm256_mullo_epi64(before, ones);
    let start = _mm256_sub_epi8(_mm256_add_epi8(within, before), count);
    let start = _mm512_cvtepu8_epi16(_mm256_add_epi8(start, _mm256_set1_epi8(bit as i8)));

    // Two bytes for each: the one that its bits start in, and the next.
    let place = _mm512_mullo_epi16(_mm512_srli_epi16::<3>(start), _mm512_set1_epi16(0x0101));
    let place = _mm512_add_epi16(place, _mm512_set1_epi16(0x0100));
    let raw = _mm512_permutexvar_epi8(place, bytes);
    let raw = _mm512_srlv_epi16(raw, _mm512_and_si512(start, _mm512_set1_epi16(7)));

    let one = _mm512_set1_epi16(1);
    let count = _mm512_cvtepu8_epi16(count);
    let unit = _mm512_sllv_epi16(one, count);
    let raw = _mm512_and_si512(raw, _mm512_sub_epi16(unit, one));
    let high = _mm512_sub_epi16(
        _mm512_cvtepu8_epi16(symbol),
        _mm512_set1_epi16(i16::from(UNCHANGED)),
    );
    let steps = _mm512_sub_epi16(
        _mm512_add_epi16(_mm512_sllv_epi16(high, count), raw),
        _mm512_srli_epi16::<1>(unit),
    );

    // SAFETY: this runs where the CPU has AVX-512.
    unsafe { stepped_avx512::<SHIFTED>(base, steps, rule.shift()) }
}

/// Rebuilds 16 weights of 32 bits, which have at most 20 low bits.
#[inline]
#[target_feature(
    enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
)]
fn singles(
    rule: &Rule,
    base: __m512i,
    symbol: __m128i,
    context: __m128i,
    low: &mut BitReader<'_>,
) -> __m512i {
    let (from, most) = rule.contexts().low_bits_rule();
    let known = _mm_test_epi8_mask(symbol, symbol);
    let above = _mm_subs_epu8(context, _mm_set1_epi8(from as i8));
    let count = _mm256_srli_epi16::<2>(_mm256_cvtepu8_epi16(above));
    let count = _mm256_maskz_min_epu16(known, count, _mm256_set1_epi16(most as i16));

    let (bytes, bit) = low.window();
    // SAFETY: the window is longer than 64 bytes.
    let bytes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>()) };
    // Running sums, of four counts by a multiplication, then of the four fours.
    let ones = _mm256_set1_epi64x(0x0001_0001_0001_0001);
    let within = _mm256_mullo_epi64(count, ones);
    let total = _mm256_srli_epi64::<48>(within);
    let (before, all) = before_each(total);
    low.skip(all);
    let before = _mm256_mullo_epi64(before, ones);
    let start = _mm256_sub_epi16(_mm256_add_epi16(within, before), count);
    let start = _mm256_add_epi16(start, _mm256_set1_epi16(bit as i16));
    let start = _mm512_cvtepu16_epi32(start);

    // Four bytes for each, from the one that its bits start in, at most the 39th.
    let first = _mm512_set1_epi64(0x0404_0404_0000_0000);
    let second = _mm512_set1_epi64(0x0c0c_0c0c_0808_0808);
    let spread = _mm512_unpacklo_epi64(first, second);
    let place = _mm512_shuffle_epi8(_mm512_srli_epi32::<3>(start), spread);
    let place = _mm512_add_epi32(place, _mm512_set1_epi32(0x0302_0100));
    let raw = _mm512_permutexvar_epi8(place, bytes);
    let raw = _mm512_srlv_epi32(raw, _mm512_and_si512(start, _mm512_set1_epi32(7)));

    let one = _mm512_set1_epi32(1);
    let count = _mm512_cvtepu16_epi32(count);
    let unit = _mm512_sllv_epi32(one, count);
    let raw = _mm512_and_si512(raw, _mm512_sub_epi32(unit, one));
    let high = _mm512_sub_epi32(
        _mm512_cvtepu8_epi32(symbol),
        _mm512_set1_epi32(i32::from(UNCHANGED)),
    );
    let steps = _mm512_sub_epi32(
        _mm512_add_epi32(_mm512_sllv_epi32(high, count), raw),
        _mm512_srli_epi32::<1>(unit),
    );

    let turned = |words| {
        _mm512_xor_si512(
            words,
            _mm512_srli_epi32::<1>(_mm512_srai_epi32::<31>(words)),
        )
    };
    let shift = _mm_cvtsi32_si128(rule.shift() as i32);
    let ordinal = _mm512_sra_epi32(turned(base), shift);
    let moved = turned(_mm512_sll_epi32(_mm512_add_epi32(ordinal, steps), shift));
    _mm512_sll_epi32(_mm512_sra_epi32(moved, shift), shift)
}

/// For each of four numbers the sum of those before it; and the sum of all.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512vl")]
pub(super) fn before_each(numbers: __m256i) -> (__m256i, usize) {
    let sum = _mm256_add_epi64(
        numbers,
        _mm256_maskz_permutex_epi64::<0b10_01_00_00>(0b1110, numbers),
    );
    let sum = _mm256_add_epi64(
        sum,
        _mm256_maskz_permutex_epi64::<0b01_00_00_00>(0b1100, sum),
    );
    (
        _mm256_sub_epi64(sum, numbers),
        _mm256_extract_epi64::<3>(sum) as usize,
    )
}
