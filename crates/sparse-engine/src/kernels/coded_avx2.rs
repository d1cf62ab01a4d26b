//! The products of [`super::coded`] with AVX2, FMA and F16C, and with the 8-bit dot products of
//! AVX-512 where the processor has them.

use std::arch::x86_64::*;

use super::coded::{Activations, Codes, Offsets, PanelNumbers, Panels, PerGroup, STEP};
use super::panels::WIDTH;

/// See [`super::coded::round`], which this is, compiled for AVX2.
pub(super) fn round(row: &[f32], block: usize, codes: &mut [i8], scales: &mut [f32]) {
    #[target_feature(enable = "avx2")]
    fn with_avx2(row: &[f32], block: usize, codes: &mut [i8], scales: &mut [f32]) {
        super::coded::round(row, block, codes, scales);
    }
    // SAFETY: called only where `Level::Avx2` or a better one was detected.
    unsafe { with_avx2(row, block, codes, scales) }
}

/// See [`super::coded::widen_panel`], which this is, compiled for AVX2. Without fused
/// operations, so that every level gives the same bits.
pub(super) fn widen(panels: &Panels, panel: usize, table: Option<&[f32; 16]>, out: &mut [f32]) {
    #[target_feature(enable = "avx2")]
    fn with_avx2(panels: &Panels, panel: usize, table: Option<&[f32; 16]>, out: &mut [f32]) {
        super::coded::widen_panel(panels, panel, table, out);
    }
    // SAFETY: called only where `Level::Avx2` or a better one was detected.
    unsafe { with_avx2(panels, panel, table, out) }
}

const NIBBLES: u8 = 0;
const BYTES: u8 = 1;
const TABLE: u8 = 2;
const SIXES: u8 = 3;

/// See `super::coded::numbers`.
///
/// # Safety
/// The processor has AVX2 and F16C; `panels` has the panel, all slices in full, and `out` has room
/// for two times sixteen numbers for each group.
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn numbers(panels: &Panels, panel: usize, out: &mut [f32]) {
    for (group, out) in out.chunks_exact_mut(2 * WIDTH).enumerate() {
        // SAFETY: by contract.
        unsafe {
            let [scale, offset] = of_group(panels, panel, group);
            let out = out.as_mut_ptr();
            _mm256_storeu_ps(out, scale[0]);
            _mm256_storeu_ps(out.add(8), scale[1]);
            _mm256_storeu_ps(out.add(16), offset[0]);
            _mm256_storeu_ps(out.add(24), offset[1]);
        }
    }
}

/// [`of_group`], without a call for what most formats have: a call would push every sum out of the
/// registers.
///
/// # Safety
/// See [`numbers`].
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn of_group_here(panels: &Panels, panel: usize, group: usize) -> [Pair<__m256>; 2] {
    let groups = panels.groups();
    // SAFETY: by contract.
    unsafe {
        match (&panels.scales, &panels.offsets) {
            (PerGroup::F16(values), Offsets::None) => {
                let at = (panel * groups + group) * WIDTH;
                [halves(values.as_ptr().add(at)), [_mm256_setzero_ps(); 2]]
            }
            (PerGroup::F16(values), Offsets::Zero(zero)) => {
                let at = (panel * groups + group) * WIDTH;
                let scale = halves(values.as_ptr().add(at));
                let zero = _mm256_set1_ps(*zero);
                let sign = _mm256_set1_ps(-0.0);
                let offset = scale.map(|scale| _mm256_xor_ps(_mm256_mul_ps(zero, scale), sign));
                [scale, offset]
            }
            (PerGroup::Nested { fine, coarse, span }, Offsets::None) if span.is_power_of_two() => {
                // A division for each group would take as long as its products.
                let shift = span.trailing_zeros();
                let spans = (groups + span - 1) >> shift;
                let fine = halves(fine.as_ptr().add((panel * groups + group) * WIDTH));
                let at = (panel * spans + (group >> shift)) * WIDTH;
                let coarse = singles(coarse.as_ptr().add(at));
                let scale = std::array::from_fn(|half| _mm256_mul_ps(fine[half], coarse[half]));
                [scale, [_mm256_setzero_ps(); 2]]
            }
            _ => of_group(panels, panel, group),
        }
    }
}

/// Scales and offsets of a group.
///
/// # Safety
/// See [`numbers`].
#[inline(never)]
#[target_feature(enable = "avx2,f16c")]
unsafe fn of_group(panels: &Panels, panel: usize, group: usize) -> [Pair<__m256>; 2] {
    let groups = panels.groups();
    let sign = _mm256_set1_ps(-0.0);
    let negative = |a: Pair<__m256>, b: Pair<__m256>| {
        std::array::from_fn(|half| _mm256_xor_ps(_mm256_mul_ps(a[half], b[half]), sign))
    };
    // SAFETY: by contract.
    unsafe {
        let scale = per_group(&panels.scales, groups, panel, group);
        let offset = match &panels.offsets {
            Offsets::None => [_mm256_setzero_ps(); 2],
            Offsets::Zero(zero) => negative([_mm256_set1_ps(*zero); 2], scale),
            Offsets::Zeros(zeros) => negative(per_group(zeros, groups, panel, group), scale),
            Offsets::Values(values) => per_group(values, groups, panel, group),
        };
        [scale, offset]
    }
}

/// The numbers of a group.
///
/// # Safety
/// See [`numbers`].
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn per_group(values: &PerGroup, groups: usize, panel: usize, group: usize) -> Pair<__m256> {
    let at = (panel * groups + group) * WIDTH;
    // SAFETY: every group of every panel has sixteen numbers, every span too.
    unsafe {
        match values {
            PerGroup::F16(values) => halves(values.as_ptr().add(at)),
            PerGroup::F32(values) => singles(values.as_ptr().add(at)),
            PerGroup::Nested { fine, coarse, span } => {
                let fine = halves(fine.as_ptr().add(at));
                let at = (panel * groups.div_ceil(*span) + group / span) * WIDTH;
                let coarse = singles(coarse.as_ptr().add(at));
                [
                    _mm256_mul_ps(fine[0], coarse[0]),
                    _mm256_mul_ps(fine[1], coarse[1]),
                ]
            }
        }
    }
}

/// Eight outputs, and the eight after them.
type Pair<T> = [T; 2];

/// The products for one set of instructions: a function of one is not inlined into that of another.
/// `$add` adds the products of four inputs of eight outputs to their sums, `$finish` ends the sums of
/// a block.
macro_rules! products {
    ($multiply:ident, $run:ident, $features:literal, $add:ident, $finish:ident) => {
        /// See `super::coded::multiply_scalar`.
        ///
        /// # Safety
        /// The processor has what the name says; `x` has the rows, `panels` the panel,
        /// and `numbers`, where there are several rows, its numbers.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $multiply(
            x: &Activations,
            first: usize,
            panels: &Panels,
            panel: usize,
            numbers: &PanelNumbers,
            out: &mut [[f32; WIDTH]],
        ) {
            let (kind, table) = match &panels.codes {
                Codes::Nibbles(_) => (NIBBLES, [0; 16]),
                Codes::Bytes(_) => (BYTES, [0; 16]),
                Codes::Sixes(_) => (SIXES, [0; 16]),
                Codes::Table(_, table) => (TABLE, *table),
            };
            let run = $run {
                x,
                first,
                panels,
                panel,
                numbers: numbers.values(),
                // SAFETY: sixteen bytes.
                table: unsafe {
                    _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()))
                },
            };
            // SAFETY: by contract.
            unsafe {
                match (kind, panels.block) {
                    (NIBBLES, 32) => run.rows_of::<NIBBLES, 8>(out),
                    (NIBBLES, _) => run.rows_of::<NIBBLES, 4>(out),
                    (BYTES, 32) => run.rows_of::<BYTES, 8>(out),
                    (BYTES, _) => run.rows_of::<BYTES, 4>(out),
                    (SIXES, 32) => run.rows_of::<SIXES, 8>(out),
                    (SIXES, _) => run.rows_of::<SIXES, 4>(out),
                    (_, 32) => run.rows_of::<TABLE, 8>(out),
                    _ => run.rows_of::<TABLE, 4>(out),
                }
            }
        }

        struct $run<'a> {
            x: &'a Activations,
            first: usize,
            panels: &'a Panels,
            panel: usize,
            numbers: &'a [f32],
            /// Both halves the same.
            table: __m256i,
        }

        impl $run<'_> {
            /// One row takes both halves of the panel at once, and so reads codes once; where codes are
            /// looked up in a table or put together, doing both at once pays too. Otherwise several rows take one half after the other:
            /// their sums then fit the registers.
            ///
            /// # Safety
            /// See [`multiply`].
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn rows_of<const KIND: u8, const STEPS: usize>(&self, out: &mut [[f32; WIDTH]]) {
                // SAFETY: by contract.
                unsafe {
                    match (out.len(), self.panels.group_blocks) {
                        (1, 1) => self.rows::<1, 2, KIND, STEPS, true>(0, out),
                        (1, _) => self.rows::<1, 2, KIND, STEPS, false>(0, out),
                        (2, 1) if KIND >= TABLE => self.rows::<2, 2, KIND, STEPS, true>(0, out),
                        (3, 1) if KIND >= TABLE => self.rows::<3, 2, KIND, STEPS, true>(0, out),
                        (_, 1) if KIND >= TABLE => self.rows::<4, 2, KIND, STEPS, true>(0, out),
                        (2, _) if KIND >= TABLE => self.rows::<2, 2, KIND, STEPS, false>(0, out),
                        (3, _) if KIND >= TABLE => self.rows::<3, 2, KIND, STEPS, false>(0, out),
                        (_, _) if KIND >= TABLE => self.rows::<4, 2, KIND, STEPS, false>(0, out),
                        (count, group_blocks) => {
                            for half in 0..2 {
                                match (count, group_blocks) {
                                    (2, 1) => self.rows::<2, 1, KIND, STEPS, true>(half, out),
                                    (3, 1) => self.rows::<3, 1, KIND, STEPS, true>(half, out),
                                    (_, 1) => self.rows::<4, 1, KIND, STEPS, true>(half, out),
                                    (2, _) => self.rows::<2, 1, KIND, STEPS, false>(half, out),
                                    (3, _) => self.rows::<3, 1, KIND, STEPS, false>(half, out),
                                    _ => self.rows::<4, 1, KIND, STEPS, false>(half, out),
                                }
                            }
                        }
                    }
                }
            }

            /// `N` rows times `H` halves from `half` on; `SINGLE` where a group is one block.
            ///
            /// # Safety
            /// See [`multiply`]; `out` has `N` rows, and there are that many halves.
            #[target_feature(enable = $features)]
            unsafe fn rows<
                const N: usize,
                const H: usize,
                const KIND: u8,
                const STEPS: usize,
                const SINGLE: bool,
            >(
                &self,
                half: usize,
                out: &mut [[f32; WIDTH]],
            ) {
                let (panels, blocks) = (self.panels, self.panels.blocks);
                let (groups, width) = (panels.groups(), blocks * panels.block);
                let block_bytes = panels.block_bytes();
                let offsets = !matches!(panels.offsets, Offsets::None);
                let mut sums = [[_mm256_setzero_ps(); H]; N];
                // SAFETY: panel `panel` begins there; rows `first` to `first + N` of the activations are
                // `width` codes, `blocks` scales and, where there are offsets, `groups` sums long.
                unsafe {
                    let start = self.panel * blocks * block_bytes;
                    let mut codes = panels.codes.bytes().as_ptr().add(start);
                    let mut x = self.x.codes.as_ptr().add(self.first * width);
                    let mut scales = self.x.scales.as_ptr().add(self.first * blocks);
                    for group in 0..groups {
                        let begin = group * panels.group_blocks;
                        let count = if SINGLE {
                            1
                        } else {
                            panels.group_blocks.min(blocks - begin)
                        };
                        let mut parts = [[_mm256_setzero_ps(); H]; N];
                        for _ in 0..count {
                            let dots = self.dots::<N, H, KIND, STEPS>(codes, half, x, width);
                            for (n, (parts, dots)) in parts.iter_mut().zip(dots).enumerate() {
                                let own = _mm256_broadcast_ss(&*scales.add(n * blocks));
                                for (part, dot) in parts.iter_mut().zip(dots) {
                                    let dot = _mm256_cvtepi32_ps(dot);
                                    *part = if SINGLE {
                                        _mm256_mul_ps(dot, own)
                                    } else {
                                        _mm256_fmadd_ps(dot, own, *part)
                                    };
                                }
                            }
                            codes = codes.add(block_bytes);
                            x = x.add(STEPS * STEP);
                            scales = scales.add(1);
                        }
                        let mut scale = [_mm256_setzero_ps(); H];
                        let mut offset = scale;
                        if N == 1 {
                            // Used once, they are not worth a round through memory.
                            let all = of_group_here(panels, self.panel, group);
                            scale.copy_from_slice(&all[0][half..half + H]);
                            offset.copy_from_slice(&all[1][half..half + H]);
                        } else {
                            let at = self.numbers.as_ptr().add(group * 2 * WIDTH + half * 8);
                            for h in 0..H {
                                scale[h] = _mm256_loadu_ps(at.add(h * 8));
                                offset[h] = _mm256_loadu_ps(at.add(WIDTH + h * 8));
                            }
                        }
                        for (sums, parts) in sums.iter_mut().zip(parts) {
                            for ((sum, part), scale) in sums.iter_mut().zip(parts).zip(scale) {
                                *sum = _mm256_fmadd_ps(part, scale, *sum);
                            }
                        }
                        if offsets {
                            let at = self.x.sums.as_ptr().add(self.first * groups + group);
                            for (n, sums) in sums.iter_mut().enumerate() {
                                let own = _mm256_broadcast_ss(&*at.add(n * groups));
                                for (sum, offset) in sums.iter_mut().zip(offset) {
                                    *sum = _mm256_fmadd_ps(own, offset, *sum);
                                }
                            }
                        }
                    }
                }
                for (out, sums) in out.iter_mut().zip(sums) {
                    for (h, sum) in sums.into_iter().enumerate() {
                        // SAFETY: eight values for each half.
                        unsafe { _mm256_storeu_ps(out.as_mut_ptr().add((half + h) * 8), sum) }
                    }
                }
            }

            /// The whole-number products of one block; rows of activations are `width` apart.
            ///
            /// # Safety
            /// `codes` points to a block of a panel, `x` to as many activations of the first row.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn dots<const N: usize, const H: usize, const KIND: u8, const STEPS: usize>(
                &self,
                codes: *const u8,
                half: usize,
                x: *const i8,
                width: usize,
            ) -> [[__m256i; H]; N] {
                let mut sums = [[_mm256_setzero_si256(); H]; N];
                for step in 0..STEPS {
                    for (n, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: four activations of row `n`.
                        let four = unsafe {
                            let four = x.add(n * width + step * STEP).cast::<i32>();
                            _mm256_set1_epi32(four.read_unaligned())
                        };
                        for (h, sum) in sums.iter_mut().enumerate() {
                            // SAFETY: step `step` of the block.
                            let weight = unsafe { self.weights::<KIND>(codes, step, half + h) };
                            *sum = $add::<KIND>(*sum, weight, four);
                        }
                    }
                }
                for sums in &mut sums {
                    for sum in sums {
                        *sum = $finish::<KIND>(*sum);
                    }
                }
                sums
            }

            /// Four inputs of eight outputs.
            ///
            /// # Safety
            /// Step `step` is within the codes.
            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn weights<const KIND: u8>(
                &self,
                codes: *const u8,
                step: usize,
                half: usize,
            ) -> __m256i {
                // SAFETY: by contract; unaligned loads.
                unsafe {
                    if KIND == BYTES {
                        return _mm256_loadu_si256(
                            codes.add(step * STEP * WIDTH + half * 32).cast(),
                        );
                    }
                    let bytes = if KIND == SIXES { 48 } else { 32 };
                    let both = _mm256_loadu_si256(codes.add(step * bytes).cast());
                    let moved = if half == 0 {
                        both
                    } else {
                        _mm256_srli_epi16::<4>(both)
                    };
                    let code = _mm256_and_si256(moved, _mm256_set1_epi8(15));
                    if KIND == NIBBLES {
                        return code;
                    }
                    if KIND == TABLE {
                        return _mm256_shuffle_epi8(self.table, code);
                    }
                    let two = _mm_loadu_si128(codes.add(step * bytes + 32).cast());
                    let two = _mm256_broadcastsi128_si256(two);
                    let places = if half == 0 {
                        _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2)
                    } else {
                        _mm256_setr_epi32(4, 4, 4, 4, 6, 6, 6, 6)
                    };
                    let two = _mm256_srlv_epi32(two, places);
                    let two = _mm256_slli_epi16::<4>(_mm256_and_si256(two, _mm256_set1_epi8(3)));
                    _mm256_sub_epi8(_mm256_or_si256(code, two), _mm256_set1_epi8(32))
                }
            }
        }
    };
}

products!(multiply, Run, "avx2,fma,f16c", add_pairs, sum_pairs);
products!(
    multiply_vnni,
    VnniRun,
    "avx2,fma,f16c,avx512f,avx512vl,avx512vnni",
    add_fours,
    as_it_is
);

/// Sixteen sums of two products of nibbles, or eight of four of other codes.
#[inline]
#[target_feature(enable = "avx2")]
fn add_pairs<const KIND: u8>(sum: __m256i, weight: __m256i, four: __m256i) -> __m256i {
    if KIND == NIBBLES {
        // Two products of 15 and 127, eight times: below 32768.
        return _mm256_add_epi16(sum, _mm256_maddubs_epi16(weight, four));
    }
    // One factor has to be unsigned: the other takes its sign.
    let signed = _mm256_sign_epi8(four, weight);
    let products = _mm256_maddubs_epi16(_mm256_abs_epi8(weight), signed);
    _mm256_add_epi32(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(1)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn sum_pairs<const KIND: u8>(sum: __m256i) -> __m256i {
    if KIND == NIBBLES {
        _mm256_madd_epi16(sum, _mm256_set1_epi16(1))
    } else {
        sum
    }
}

/// Eight sums of four products.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512vl,avx512vnni")]
fn add_fours<const KIND: u8>(sum: __m256i, weight: __m256i, four: __m256i) -> __m256i {
    if KIND == NIBBLES {
        return _mm256_dpbusd_epi32(sum, weight, four);
    }
    let signed = _mm256_sign_epi8(four, weight);
    _mm256_dpbusd_epi32(sum, _mm256_abs_epi8(weight), signed)
}

#[inline]
#[target_feature(enable = "avx2")]
fn as_it_is<const KIND: u8>(sum: __m256i) -> __m256i {
    sum
}

/// # Safety
/// Sixteen values are at `at`.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn halves(at: *const u16) -> Pair<__m256> {
    // SAFETY: by contract; unaligned loads.
    unsafe {
        [
            _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
            _mm256_cvtph_ps(_mm_loadu_si128(at.add(8).cast())),
        ]
    }
}

/// # Safety
/// Sixteen values are at `at`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn singles(at: *const f32) -> Pair<__m256> {
    // SAFETY: by contract; unaligned loads.
    unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
}
