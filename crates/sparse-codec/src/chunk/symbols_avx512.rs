//! The AVX-512 side of [`super::symbols`]: 64 words of 16 bits at a time.

use std::arch::x86_64::{
    __m512i, _mm512_abs_epi8, _mm512_add_epi16, _mm512_and_si512, _mm512_castsi256_si512,
    _mm512_castsi512_si256, _mm512_cmpge_epi16_mask, _mm512_cmpgt_epu8_mask, _mm512_cvtepi16_epi8,
    _mm512_cvtepu8_epi16, _mm512_extracti64x4_epi64, _mm512_inserti64x4, _mm512_loadu_si512,
    _mm512_mask_blend_epi8, _mm512_mask_cmple_epu16_mask, _mm512_maskz_add_epi16, _mm512_min_epu8,
    _mm512_movepi8_mask, _mm512_permutex2var_epi8, _mm512_set1_epi8, _mm512_set1_epi16,
    _mm512_shuffle_epi8, _mm512_srav_epi16, _mm512_srli_epi16, _mm512_storeu_si512,
    _mm512_sub_epi8, _mm512_subs_epu8,
};

use super::pack::GROUP;
use super::symbols::{SymbolCoder, put_eights};
use crate::Word;
use crate::context::{DIRECT, UNCHANGED};
use crate::simd::steps_avx512;

/// For up to seven low bits, repeated in each quarter of a register: half of what they count to,
/// and a one for each of them.
static HALVES: [u8; GROUP] = each_quarter([0, 1, 2, 4, 8, 16, 32, 64]);
static ONES: [u8; GROUP] = each_quarter([0, 1, 3, 7, 15, 31, 63, 127]);

const fn each_quarter(first: [u8; 8]) -> [u8; GROUP] {
    let mut all = [0; GROUP];
    let mut i = 0;
    while i < GROUP {
        if i % 16 < 8 {
            all[i] = first[i % 16];
        }
        i += 1;
    }
    all
}

/// As [`SymbolCoder::push`], for whole groups of 64 weights; returns how many weights that was.
///
/// # Safety
/// The CPU must have what [`crate::simd::Level::Avx512`] stands for, and the words must have 16
/// bits.
#[target_feature(
    enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
)]
pub(super) unsafe fn push<W: Word>(
    coder: &mut SymbolCoder<'_>,
    contexts: &[u8],
    base: &[W],
    fine: &[W],
    symbols: &mut [u8],
) -> usize {
    // SAFETY: bytes are given as long as a register.
    let load =
        |bytes: &[u8; GROUP]| unsafe { _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>()) };
    // SAFETY: as above.
    let store = |bytes: &mut [u8; GROUP], register| unsafe {
        _mm512_storeu_si512(bytes.as_mut_ptr().cast::<__m512i>(), register);
    };
    let (from, most) = coder.contexts.low_bits_rule();
    let (from, most) = (_mm512_set1_epi8(from as i8), _mm512_set1_epi8(most as i8));
    let (halves, ones) = (load(&HALVES), load(&ONES));
    let reaches = coder.reaches.as_chunks::<GROUP>().0;
    let reaches = [
        load(&reaches[0]),
        load(&reaches[1]),
        load(&reaches[2]),
        load(&reaches[3]),
    ];
    let shift = coder.shift();
    let (bases, fines) = (base.as_chunks::<GROUP>().0, fine.as_chunks::<GROUP>().0);
    let groups = contexts
        .as_chunks::<GROUP>()
        .0
        .iter()
        .zip(bases.iter().zip(fines));
    let mut done = 0;
    for ((here, (base, fine)), symbols) in groups.zip(symbols.as_chunks_mut::<GROUP>().0) {
        let context = load(here);
        // Bits of the neighbour come in from above when bytes are shifted as words.
        let above = _mm512_srli_epi16::<2>(_mm512_subs_epu8(context, from));
        let bits = _mm512_and_si512(above, _mm512_set1_epi8(0x3f));
        let bits = _mm512_min_epu8(bits, most);
        let (half, mask) = (
            _mm512_shuffle_epi8(halves, bits),
            _mm512_shuffle_epi8(ones, bits),
        );
        let part = |at: usize, bits, half| {
            // SAFETY: 32 words of 16 bits from `at` on are as long as a register.
            let (base, fine) = unsafe {
                (
                    _mm512_loadu_si512(base.as_ptr().add(at).cast::<__m512i>()),
                    _mm512_loadu_si512(fine.as_ptr().add(at).cast::<__m512i>()),
                )
            };
            // SAFETY: the caller vouches for the CPU.
            let steps = unsafe { steps_avx512(base, fine, shift) };
            let centred = _mm512_add_epi16(steps, half);
            let high = _mm512_srav_epi16(centred, bits);
            // Sums that wrap around are no symbols, nor what is beyond them.
            let whole = _mm512_cmpge_epi16_mask(centred, steps);
            let direct = _mm512_mask_cmple_epu16_mask(
                whole,
                _mm512_add_epi16(high, _mm512_set1_epi16(DIRECT as i16)),
                _mm512_set1_epi16(2 * DIRECT as i16),
            );
            let symbol =
                _mm512_maskz_add_epi16(direct, high, _mm512_set1_epi16(i16::from(UNCHANGED)));
            (_mm512_cvtepi16_epi8(symbol), _mm512_cvtepi16_epi8(centred))
        };
        let lower = |bytes| _mm512_cvtepu8_epi16(_mm512_castsi512_si256(bytes));
        let upper = |bytes| _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64::<1>(bytes));
        let first = part(0, lower(bits), lower(half));
        let second = part(32, upper(bits), upper(half));
        let both = |first, second| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
        let symbol = both(first.0, second.0);
        store(symbols, symbol);
        let rest = both(first.1, second.1);

        let near = _mm512_permutex2var_epi8(reaches[0], context, reaches[1]);
        let far = _mm512_permutex2var_epi8(reaches[2], context, reaches[3]);
        let reach = _mm512_mask_blend_epi8(_mm512_movepi8_mask(context), near, far);
        let distance = _mm512_abs_epi8(_mm512_sub_epi8(symbol, _mm512_set1_epi8(UNCHANGED as i8)));
        let far = _mm512_cmpgt_epu8_mask(distance, reach);
        let (mut rests, mut masks) = ([0; GROUP], [0; GROUP]);
        store(&mut rests, rest);
        store(&mut masks, mask);
        if far != 0 {
            coder.settle(far, here, base, fine, symbols, |i| masks[i] = 0);
        }
        // SAFETY: the caller vouches for the CPU.
        unsafe { put_eights(&rests, &masks, &mut coder.low) };
        done += GROUP;
    }
    done
}
