//! The AVX-512 side of both directions: 64 words of 16 bits at a time. Tables are held in
//! registers and looked up by permutations; no weight waits for the one before it.

use std::arch::x86_64::{
    __m256i, __m512i, __mmask64, _mm256_mullo_epi64, _mm256_set1_epi64x, _mm256_srli_epi64,
    _mm256_sub_epi8, _mm512_add_epi8, _mm512_add_epi16, _mm512_add_epi32, _mm512_add_epi64,
    _mm512_and_si512, _mm512_castsi256_si512, _mm512_castsi512_si256, _mm512_cmpeq_epi8_mask,
    _mm512_cmpge_epi16_mask, _mm512_cmpgt_epu8_mask, _mm512_cmpgt_epu64_mask, _mm512_cvtepi8_epi16,
    _mm512_cvtepi16_epi8, _mm512_cvtepu8_epi16, _mm512_cvtepu32_epi64, _mm512_extracti64x4_epi64,
    _mm512_inserti64x4, _mm512_loadu_si512, _mm512_mask_blend_epi8, _mm512_mask_cmplt_epu16_mask,
    _mm512_mask_mov_epi8, _mm512_maskz_mov_epi16, _mm512_movepi8_mask, _mm512_mullo_epi16,
    _mm512_or_si512, _mm512_permutex2var_epi8, _mm512_permutex2var_epi64, _mm512_permutexvar_epi8,
    _mm512_permutexvar_epi64, _mm512_set_epi64, _mm512_set1_epi8, _mm512_set1_epi16,
    _mm512_set1_epi32, _mm512_set1_epi64, _mm512_shrdv_epi16, _mm512_shuffle_epi8,
    _mm512_shuffle_epi32, _mm512_slli_epi16, _mm512_sllv_epi16, _mm512_sllv_epi32,
    _mm512_sllv_epi64, _mm512_srav_epi16, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_srli_epi64,
    _mm512_srlv_epi16, _mm512_storeu_si512, _mm512_sub_epi8, _mm512_sub_epi16,
    _mm512_test_epi8_mask,
};

use super::Ranks;
use super::read::unknown_class;
use super::write::RankCoder;
use crate::bits::{BitReader, BitWriter};
use crate::chunk::apply_avx512::before_each;
use crate::chunk::pack::GROUP;
use crate::context::BLOCK;
use crate::ranks::{CLASSES, ESCAPED, NEAR};
use crate::simd::{prefetch, stepped_avx512, steps_avx512};
use crate::{CodecError, Word};

macro_rules! features {
    ($(#[$meta:meta])* $vis:vis unsafe fn $($rest:tt)*) => {
        $(#[$meta])*
        #[inline]
        #[target_feature(
            enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
        )]
        $vis unsafe fn $($rest)*
    };
    ($(#[$meta:meta])* fn $($rest:tt)*) => {
        $(#[$meta])*
        #[inline]
        #[target_feature(
            enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2"
        )]
        fn $($rest)*
    };
}

/// The end of each class in unary: a one above as many zeros.
static ENDS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];

/// A table of bytes in registers.
#[derive(Clone, Copy)]
struct Table<const REGISTERS: usize>([__m512i; REGISTERS]);

features! {
    fn load(bytes: &[u8; GROUP]) -> __m512i {
        // SAFETY: the bytes are as long as a register.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>()) }
    }
}

features! {
    fn store_long(numbers: &mut [u64; 8], register: __m512i) {
        // SAFETY: the numbers are as long as a register.
        unsafe { _mm512_storeu_si512(numbers.as_mut_ptr().cast::<__m512i>(), register) }
    }
}

impl<const REGISTERS: usize> Table<REGISTERS> {
    features! {
        fn new(bytes: &[u8]) -> Self {
            let parts = bytes.as_chunks::<GROUP>().0;
            let mut table = [_mm512_set1_epi8(0); REGISTERS];
            for (register, part) in table.iter_mut().zip(parts) {
                *register = load(part);
            }
            Self(table)
        }
    }

    features! {
        /// Of each index, the low seven bits: entries of the 128 from `128 * at` on.
        fn part(&self, at: usize, index: __m512i) -> __m512i {
            _mm512_permutex2var_epi8(self.0[2 * at], index, self.0[2 * at + 1])
        }
    }

    features! {
        /// Entries of the 256 from `256 * at` on.
        fn pair(&self, at: usize, index: __m512i) -> __m512i {
            let (first, second) = (self.part(2 * at, index), self.part(2 * at + 1, index));
            _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), first, second)
        }
    }
}

impl Table<16> {
    features! {
        /// Entries of codes, times eight, and one of 32 each.
        fn of_codes(&self, code: __m512i, entry: __m512i, wide: bool) -> __m512i {
            let of_eight = _mm512_and_si512(_mm512_slli_epi16::<2>(code), _mm512_set1_epi8(0xe0u8 as i8));
            let index = _mm512_or_si512(of_eight, entry);
            let second = _mm512_test_epi8_mask(code, _mm512_set1_epi8(0x40));
            let low = _mm512_mask_blend_epi8(second, self.pair(0, index), self.pair(1, index));
            if !wide {
                return low;
            }
            let high = _mm512_mask_blend_epi8(second, self.pair(2, index), self.pair(3, index));
            _mm512_mask_blend_epi8(_mm512_movepi8_mask(code), low, high)
        }
    }
}

/// What both directions look up, of each context and class.
struct Tables {
    codes: Table<2>,
    low_bits: Table<2>,
    classes: Table<4>,
    /// Whether there are more than sixteen codes.
    wide: bool,
}

impl Tables {
    features! {
        fn new(ranks: &Ranks<'_>) -> Self {
            let codes = &ranks.codes.codes[..128];
            Self {
                codes: Table::new(codes),
                low_bits: Table::new(&ranks.low_bits[..128]),
                classes: Table::new(&ranks.codes.classes),
                wide: codes.iter().any(|&code| usize::from(code) >= 16 * CLASSES),
            }
        }
    }
}

features! {
    fn halves(bytes: __m512i) -> [__m256i; 2] {
        [_mm512_castsi512_si256(bytes), _mm512_extracti64x4_epi64::<1>(bytes)]
    }
}

features! {
    fn widened(bytes: __m512i) -> [__m512i; 2] {
        let [first, second] = halves(bytes);
        [_mm512_cvtepu8_epi16(first), _mm512_cvtepu8_epi16(second)]
    }
}

features! {
    fn whole(halves: [__m256i; 2]) -> __m512i {
        _mm512_inserti64x4::<1>(_mm512_castsi256_si512(halves[0]), halves[1])
    }
}

features! {
    /// For bytes of at most 15, the sum of those before each, as words, and the sum of all.
    fn sums(counts: __m256i) -> (__m512i, usize) {
        let within = _mm256_mullo_epi64(counts, _mm256_set1_epi64x(0x0101_0101_0101_0101));
        let eights = _mm256_srli_epi64::<56>(within);
        let (before, all) = before_each(eights);
        let before = _mm256_mullo_epi64(before, _mm256_set1_epi64x(0x0001_0001_0001_0001));
        let twice = _mm512_set_epi64(3, 3, 2, 2, 1, 1, 0, 0);
        let before = _mm512_permutexvar_epi64(twice, _mm512_castsi256_si512(before));
        let within = _mm512_cvtepu8_epi16(_mm256_sub_epi8(within, counts));
        (_mm512_add_epi16(within, before), all)
    }
}

features! {
    /// The next bits of each word, so many of them.
    fn take(low: &mut BitReader<'_>, counts: __m256i) -> __m512i {
        let (bytes, bit) = low.window();
        // SAFETY: the window is longer than 64 bytes.
        let bytes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast::<__m512i>()) };
        let (start, all) = sums(counts);
        low.skip(all);
        let start = _mm512_add_epi16(start, _mm512_set1_epi16(bit as i16));
        // The byte that the bits start in, at most the 60th, and the three after it.
        let place = _mm512_mullo_epi16(_mm512_srli_epi16::<3>(start), _mm512_set1_epi16(0x0101));
        let first = _mm512_permutexvar_epi8(_mm512_add_epi16(place, _mm512_set1_epi16(0x0100)), bytes);
        let second = _mm512_permutexvar_epi8(_mm512_add_epi16(place, _mm512_set1_epi16(0x0302)), bytes);
        let raw = _mm512_shrdv_epi16(first, second, _mm512_and_si512(start, _mm512_set1_epi16(7)));
        let one = _mm512_set1_epi16(1);
        let unit = _mm512_sllv_epi16(one, _mm512_cvtepu8_epi16(counts));
        _mm512_and_si512(raw, _mm512_sub_epi16(unit, one))
    }
}

features! {
    /// As [`Ranks::block`] does, for whole groups of 64 weights; returns how many weights that was.
    ///
    /// # Safety
    /// The CPU must have what [`crate::simd::Level::Avx512`] stands for, and the words must have 16
    /// bits; `SHIFTED` says whether some of these are zero in all.
    pub(super) unsafe fn decode<W: Word, const SHIFTED: bool>(
        ranks: &Ranks<'_>,
        contexts: &[u8],
        ends: &[u8],
        base: &[W],
        low: &mut BitReader<'_>,
        out: &mut [W],
        escapes: &mut Vec<u32>,
    ) -> Result<usize, CodecError> {
        let tables = Tables::new(ranks);
        let differences = ranks.codes.differences.map(|d| d as u8);
        let differences = Table::<16>::new(&differences);
        let shift = ranks.layout.shift();
        let groups = contexts.as_chunks::<GROUP>().0;
        let words = base.as_chunks::<GROUP>().0.iter().zip(out.as_chunks_mut::<GROUP>().0);
        let seven = _mm512_set1_epi8(7);
        let mut unknown: __mmask64 = 0;
        let mut escaped = [0u64; BLOCK / GROUP];
        assert!(groups.len() <= escaped.len() && ends.len() > GROUP * groups.len());
        for (i, ((here, (base, out)), escaped)) in groups.iter().zip(words).zip(&mut escaped).enumerate() {
            let context = load(here);
            prefetch(base.as_ptr().wrapping_add(BLOCK), GROUP);
            prefetch(out.as_ptr().wrapping_add(BLOCK), GROUP);
            // SAFETY: there are 64 ends for each group, and one more.
            let (before, end) = unsafe {
                let ends = ends.as_ptr().add(GROUP * i);
                (
                    _mm512_loadu_si512(ends.cast::<__m512i>()),
                    _mm512_loadu_si512(ends.add(1).cast::<__m512i>()),
                )
            };
            let class = _mm512_sub_epi8(_mm512_sub_epi8(end, before), _mm512_set1_epi8(1));
            unknown |= _mm512_cmpgt_epu8_mask(class, seven);
            let code = tables.codes.part(0, context);
            let low_bits = tables.low_bits.part(0, context);
            let class = tables.classes.pair(0, _mm512_or_si512(code, class));
            let class_bits = _mm512_and_si512(_mm512_srli_epi16::<5>(class), seven);
            let counts = halves(_mm512_add_epi8(class_bits, low_bits));
            let raw = [take(low, counts[0]), take(low, counts[1])];
            let low_bits = widened(low_bits);
            let high = [_mm512_srlv_epi16(raw[0], low_bits[0]), _mm512_srlv_epi16(raw[1], low_bits[1])];
            let place = whole([_mm512_cvtepi16_epi8(high[0]), _mm512_cvtepi16_epi8(high[1])]);
            let rank = _mm512_and_si512(_mm512_add_epi8(class, place), _mm512_set1_epi8(31));
            let difference = differences.of_codes(code, rank, tables.wide);
            *escaped = _mm512_cmpeq_epi8_mask(difference, _mm512_set1_epi8(ESCAPED));
            let difference = halves(difference);
            for part in 0..2 {
                // SAFETY: 64 words are two registers.
                let base = unsafe { _mm512_loadu_si512(base.as_ptr().add(32 * part).cast::<__m512i>()) };
                let whole = _mm512_sub_epi16(_mm512_cvtepi8_epi16(difference[part]), high[part]);
                let one = _mm512_set1_epi16(1);
                let half = _mm512_srli_epi16::<1>(_mm512_sllv_epi16(one, low_bits[part]));
                let steps = _mm512_sllv_epi16(whole, low_bits[part]);
                let steps = _mm512_add_epi16(steps, _mm512_sub_epi16(raw[part], half));
                // SAFETY: the caller vouches for the CPU.
                let word = unsafe { stepped_avx512::<SHIFTED>(base, steps, shift) };
                // SAFETY: as at the load.
                unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(32 * part).cast::<__m512i>(), word) };
            }
        }
        if unknown != 0 {
            let differences = ends.windows(2).map(|e| e[1].wrapping_sub(e[0]).wrapping_sub(1));
            return Err(unknown_class(differences.max().unwrap_or(0)));
        }
        for (i, &mask) in escaped[..groups.len()].iter().enumerate() {
            let mut mask = mask;
            while mask != 0 {
                escapes.push(GROUP as u32 * i as u32 + mask.trailing_zeros());
                mask &= mask - 1;
            }
        }
        Ok(GROUP * groups.len())
    }
}

features! {
    /// As [`RankCoder::push`] does, for whole groups of 64 weights; returns how many weights that
    /// was.
    ///
    /// # Safety
    /// The CPU must have what [`crate::simd::Level::Avx512`] stands for, and the words must have 16
    /// bits.
    pub(super) unsafe fn encode<W: Word>(
        coder: &mut RankCoder<'_>,
        contexts: &[u8],
        base: &[W],
        fine: &[W],
    ) -> usize {
        let tables = Tables::new(&coder.ranks);
        let places = Table::<16>::new(&coder.ranks.codes.places);
        let mut of_codes = [0; GROUP];
        of_codes[..crate::ranks::CODES].copy_from_slice(&coder.ranks.codes.escapes);
        let escapes = load(&of_codes);
        let quarters = |bytes: &[u8; 16]| {
            let mut all = [0; GROUP];
            for part in all.as_chunks_mut::<16>().0 {
                *part = *bytes;
            }
            load(&all)
        };
        let class_ends = quarters(&ENDS);
        let shift = coder.ranks.layout.shift();
        let (bases, fines) = (base.as_chunks::<GROUP>().0, fine.as_chunks::<GROUP>().0);
        let groups = contexts.as_chunks::<GROUP>().0;
        let seven = _mm512_set1_epi8(7);
        for (here, (base, fine)) in groups.iter().zip(bases.iter().zip(fines)) {
            let context = load(here);
            let code = tables.codes.part(0, context);
            let low_bits = tables.low_bits.part(0, context);
            let wide = widened(low_bits);
            let parts = [
                // SAFETY: 64 words are two registers.
                unsafe { split(base.as_ptr().cast(), fine.as_ptr().cast(), shift, wide[0]) },
                // SAFETY: as above.
                unsafe { split(base.as_ptr().add(32).cast(), fine.as_ptr().add(32).cast(), shift, wide[1]) },
            ];
            let near = u64::from(parts[0].1) | u64::from(parts[1].1) << 32;
            let difference = whole([parts[0].0, parts[1].0]);
            let difference = _mm512_and_si512(difference, _mm512_set1_epi8(31));
            let escape = _mm512_permutexvar_epi8(
                _mm512_and_si512(_mm512_srli_epi16::<3>(code), _mm512_set1_epi8(31)),
                escapes,
            );
            let place = _mm512_mask_mov_epi8(escape, near, places.of_codes(code, difference, tables.wide));
            let far = _mm512_cmpeq_epi8_mask(place, escape);
            let mut left = far;
            while left != 0 {
                let i = left.trailing_zeros() as usize;
                coder.escape(base[i].steps_to(fine[i], shift));
                left &= left - 1;
            }
            let class = _mm512_and_si512(_mm512_srli_epi16::<5>(place), seven);
            let (values, counts) = fours(
                _mm512_shuffle_epi8(class_ends, class),
                _mm512_add_epi8(class, _mm512_set1_epi8(1)),
            );
            put::<true>(&mut coder.classes, values, counts);

            let class_bits = tables.classes.pair(0, _mm512_or_si512(code, class));
            let class_bits = _mm512_and_si512(_mm512_srli_epi16::<5>(class_bits), seven);
            let counts = halves(_mm512_add_epi8(class_bits, low_bits));
            let place = halves(_mm512_and_si512(place, _mm512_set1_epi8(31)));
            let places = [_mm512_cvtepu8_epi16(place[0]), _mm512_cvtepu8_epi16(place[1])];
            let mut values = [places[0]; 2];
            let mut sums = [places[0]; 2];
            for at in 0..2 {
                let low = _mm512_maskz_mov_epi16(!(far >> (32 * at)) as u32, parts[at].2);
                let value = _mm512_or_si512(_mm512_sllv_epi16(places[at], wide[at]), low);
                (values[at], sums[at]) = joined(value, _mm512_cvtepu8_epi16(counts[at]));
            }
            put::<false>(&mut coder.low, values, sums);
        }
        GROUP * groups.len()
    }
}

features! {
    /// Differences from -[`NEAR`] on, which of them are near, and the bits below them, given how
    /// many.
    ///
    /// # Safety
    /// The pointers must be to 32 words of 16 bits each.
    unsafe fn split(
        base: *const __m512i,
        fine: *const __m512i,
        shift: u32,
        low_bits: __m512i,
    ) -> (__m256i, u32, __m512i) {
        // SAFETY: the caller vouches for the CPU and the pointers.
        let steps = unsafe {
            steps_avx512(_mm512_loadu_si512(base), _mm512_loadu_si512(fine), shift)
        };
        let unit = _mm512_sllv_epi16(_mm512_set1_epi16(1), low_bits);
        let centred = _mm512_add_epi16(steps, _mm512_srli_epi16::<1>(unit));
        let difference = _mm512_srav_epi16(centred, low_bits);
        // Sums that wrap around have no rank.
        let straight = _mm512_cmpge_epi16_mask(centred, steps);
        let difference = _mm512_add_epi16(difference, _mm512_set1_epi16(NEAR as i16));
        let near = _mm512_mask_cmplt_epu16_mask(straight, difference, _mm512_set1_epi16(2 * NEAR as i16));
        let low = _mm512_and_si512(centred, _mm512_sub_epi16(unit, _mm512_set1_epi16(1)));
        (_mm512_cvtepi16_epi8(difference), near, low)
    }
}

features! {
    /// The bits of each four bytes as one, and how many these are, at most eight of a byte.
    fn fours(values: __m512i, counts: __m512i) -> ([__m512i; 2], [__m512i; 2]) {
        let bytes = _mm512_set1_epi16(0xff);
        let first = _mm512_and_si512(counts, bytes);
        let second = _mm512_sllv_epi16(_mm512_srli_epi16::<8>(values), first);
        let values = _mm512_or_si512(_mm512_and_si512(values, bytes), second);
        let counts = _mm512_add_epi16(first, _mm512_srli_epi16::<8>(counts));
        let (values, counts) = (pairs(values, counts), pair_counts(counts));
        let [first, second] = halves(values);
        let values = [_mm512_cvtepu32_epi64(first), _mm512_cvtepu32_epi64(second)];
        let [first, second] = halves(counts);
        (values, [_mm512_cvtepu32_epi64(first), _mm512_cvtepu32_epi64(second)])
    }
}

features! {
    /// The bits of each two words as one.
    fn pairs(values: __m512i, counts: __m512i) -> __m512i {
        let words = _mm512_set1_epi32(0xffff);
        let first = _mm512_and_si512(counts, words);
        let second = _mm512_sllv_epi32(_mm512_srli_epi32::<16>(values), first);
        _mm512_or_si512(_mm512_and_si512(values, words), second)
    }
}

features! {
    /// How many bits [`pairs`] have.
    fn pair_counts(counts: __m512i) -> __m512i {
        let first = _mm512_and_si512(counts, _mm512_set1_epi32(0xffff));
        _mm512_add_epi32(first, _mm512_srli_epi32::<16>(counts))
    }
}

features! {
    /// The bits of each four words as one, and how many these are; at most 56.
    fn joined(values: __m512i, counts: __m512i) -> (__m512i, __m512i) {
        let (values, counts) = (pairs(values, counts), pair_counts(counts));
        let doubles = _mm512_set1_epi64(0xffff_ffff);
        let first = _mm512_and_si512(counts, doubles);
        let second = _mm512_sllv_epi64(_mm512_srli_epi64::<32>(values), first);
        let values = _mm512_or_si512(_mm512_and_si512(values, doubles), second);
        (values, _mm512_add_epi64(first, _mm512_srli_epi64::<32>(counts)))
    }
}

features! {
    /// Appends sixteen strings of at most 56 bits: joined, where that makes none longer than that.
    fn put<const SHORT: bool>(writer: &mut BitWriter, values: [__m512i; 2], counts: [__m512i; 2]) {
        let most = _mm512_set1_epi64(56);
        let (mut strings, mut lengths) = ([0; 8], [0; 8]);
        let evens = _mm512_set_epi64(14, 12, 10, 8, 6, 4, 2, 0);
        let odds = _mm512_set_epi64(15, 13, 11, 9, 7, 5, 3, 1);
        let first = _mm512_permutex2var_epi64(counts[0], evens, counts[1]);
        let second = _mm512_permutex2var_epi64(counts[0], odds, counts[1]);
        let of_two = _mm512_add_epi64(first, second);
        if _mm512_cmpgt_epu64_mask(of_two, most) != 0 {
            for (values, counts) in values.into_iter().zip(counts) {
                store_long(&mut strings, values);
                store_long(&mut lengths, counts);
                writer.put_each(&strings, &lengths);
            }
            return;
        }
        let second = _mm512_permutex2var_epi64(values[0], odds, values[1]);
        let twos = _mm512_or_si512(
            _mm512_permutex2var_epi64(values[0], evens, values[1]),
            _mm512_sllv_epi64(second, first),
        );
        // In the even places, those of four.
        let of_four = _mm512_add_epi64(of_two, _mm512_shuffle_epi32::<0b01_00_11_10>(of_two));
        if !SHORT || _mm512_cmpgt_epu64_mask(of_four, most) != 0 {
            store_long(&mut strings, twos);
            store_long(&mut lengths, of_two);
            writer.put_each(&strings, &lengths);
            return;
        }
        let second = _mm512_shuffle_epi32::<0b01_00_11_10>(twos);
        let fours = _mm512_or_si512(twos, _mm512_sllv_epi64(second, of_two));
        store_long(&mut strings, fours);
        store_long(&mut lengths, of_four);
        writer.put_each(
            &[strings[0], strings[2], strings[4], strings[6]],
            &[lengths[0], lengths[2], lengths[4], lengths[6]],
        );
    }
}
