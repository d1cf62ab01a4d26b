//! The AVX-512 side of [`super::score`]: classes of 32 differences of 16 bits at a time.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_storeu_si256, _mm512_abs_epi16, _mm512_castsi512_si256,
    _mm512_cmpge_epu16_mask, _mm512_cvtepi16_epi8, _mm512_loadu_si512, _mm512_mask_add_epi16,
    _mm512_mask_srli_epi16, _mm512_permutex2var_epi8, _mm512_permutex2var_epi16, _mm512_set1_epi16,
    _mm512_setzero_si512, _mm512_zextsi256_si512,
};

use crate::Word;
use crate::simd::steps_avx512;

/// The classes of magnitudes below 128, as [`super::score::bucket`] has them.
static CLASSES: [[u8; 64]; 2] = {
    let mut classes = [[0; 64]; 2];
    let mut magnitude = 0usize;
    while magnitude < 128 {
        let class = if magnitude < 8 {
            magnitude
        } else {
            let octave = magnitude.ilog2() as usize;
            2 * octave + 2 + (magnitude >> (octave - 1)) % 2
        };
        classes[magnitude / 64][magnitude % 64] = class as u8;
        magnitude += 1;
    }
    classes
};

/// Every other word of two registers.
static EVEN: [u16; 32] = {
    let mut even = [0; 32];
    let mut i = 0;
    while i < 32 {
        even[i] = 2 * i as u16;
        i += 1;
    }
    even
};

/// The classes of every other difference, 32 at a time; returns how many that were.
///
/// # Safety
/// The CPU must have what [`crate::simd::Level::Avx512`] stands for, and the words must have 16
/// bits.
#[target_feature(
    enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
)]
pub(crate) unsafe fn look_half<W: Word>(
    shift: u32,
    base: &[W],
    fine: &[W],
    out: &mut [u8],
) -> usize {
    // SAFETY: what is loaded is 64 bytes long, or for words at least that from `at` on.
    let table = |bytes: *const u8| unsafe { _mm512_loadu_si512(bytes.cast::<__m512i>()) };
    let classes = [table(CLASSES[0].as_ptr()), table(CLASSES[1].as_ptr())];
    let even = table(EVEN.as_ptr().cast());
    let groups = base
        .as_chunks::<64>()
        .0
        .iter()
        .zip(fine.as_chunks::<64>().0);
    let mut done = 0;
    for ((base, fine), out) in groups.zip(out.as_chunks_mut::<32>().0) {
        let every_other = |words: &[W; 64]| {
            let first = table(words.as_ptr().cast());
            let second = table(words[32..].as_ptr().cast());
            _mm512_permutex2var_epi16(first, even, second)
        };
        // SAFETY: the caller vouches for the CPU.
        let steps = unsafe { steps_avx512(every_other(base), every_other(fine), shift) };
        let magnitude = _mm512_abs_epi16(steps);
        // Four bits less are eight classes less.
        let (mut small, mut above) = (magnitude, _mm512_setzero_si512());
        macro_rules! level {
            ($least:expr, $bits:literal) => {
                let large = _mm512_cmpge_epu16_mask(magnitude, _mm512_set1_epi16($least));
                small = _mm512_mask_srli_epi16::<$bits>(small, large, magnitude);
                above = _mm512_mask_add_epi16(above, large, above, _mm512_set1_epi16(8));
            };
        }
        level!(128, 4);
        level!(128 << 4, 8);
        level!(i16::MIN, 12);
        let bytes = |words| _mm512_zextsi256_si512(_mm512_cvtepi16_epi8(words));
        let class = _mm512_permutex2var_epi8(classes[0], bytes(small), classes[1]);
        let class = std::arch::x86_64::_mm512_add_epi8(class, bytes(above));
        // SAFETY: 32 bytes are as long as half a register.
        unsafe {
            let place = out.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(place, _mm512_castsi512_si256(class));
        }
        done += 32;
    }
    done
}
