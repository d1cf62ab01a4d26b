//! The products of [`super::matmul`] with AVX2, FMA and F16C.
//!
//! Everything here is called only where `Level::Avx2` was detected.

use std::arch::x86_64::*;

use super::matmul::{ROWS, Tile};
use super::panels::{Values, WIDTH};

/// See `scalar::one_row`: at most four panels from `panel` on, as many as `out` has room for.
pub(super) fn one_row(x: &[f32], weights: &Values, groups: usize, panel: usize, out: &mut [f32]) {
    let count = out.len() / WIDTH;
    assert!((1..=4).contains(&count) && out.len() == count * WIDTH && x.len() <= groups);
    let range = panel * groups * WIDTH..(panel + count) * groups * WIDTH;
    // SAFETY: the processor has the instructions, see above. The panels read are within the slice
    // that `range` cuts, `x.len() <= groups` groups of each, and `out` is as long as asserted.
    unsafe {
        match (weights, count) {
            (Values::F32(v), 4) => one_row_f32::<4>(x, v[range].as_ptr(), groups, out.as_mut_ptr()),
            (Values::F32(v), 3) => one_row_f32::<3>(x, v[range].as_ptr(), groups, out.as_mut_ptr()),
            (Values::F32(v), 2) => one_row_f32::<2>(x, v[range].as_ptr(), groups, out.as_mut_ptr()),
            (Values::F32(v), _) => one_row_f32::<1>(x, v[range].as_ptr(), groups, out.as_mut_ptr()),
            (Values::Bf16(v), 4) => {
                one_row_bf16::<4>(x, v[range].as_ptr(), groups, out.as_mut_ptr())
            }
            (Values::Bf16(v), 3) => {
                one_row_bf16::<3>(x, v[range].as_ptr(), groups, out.as_mut_ptr())
            }
            (Values::Bf16(v), 2) => {
                one_row_bf16::<2>(x, v[range].as_ptr(), groups, out.as_mut_ptr())
            }
            (Values::Bf16(v), _) => {
                one_row_bf16::<1>(x, v[range].as_ptr(), groups, out.as_mut_ptr())
            }
            (Values::F16(v), 4) => one_row_f16::<4>(x, v[range].as_ptr(), groups, out.as_mut_ptr()),
            (Values::F16(v), 3) => one_row_f16::<3>(x, v[range].as_ptr(), groups, out.as_mut_ptr()),
            (Values::F16(v), 2) => one_row_f16::<2>(x, v[range].as_ptr(), groups, out.as_mut_ptr()),
            (Values::F16(v), _) => one_row_f16::<1>(x, v[range].as_ptr(), groups, out.as_mut_ptr()),
        }
    }
}

/// One function for each stored type: `$load` makes two registers of eight weights from the
/// sixteen at a pointer.
macro_rules! one_row {
    ($name:ident, $stored:ty, $load:expr) => {
        /// # Safety
        /// `panels` points to `PANELS * groups` groups of sixteen weights, `x` is at most as long
        /// as `groups`, and `out` has room for `PANELS * 16` values.
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn $name<const PANELS: usize>(
            x: &[f32],
            panels: *const $stored,
            groups: usize,
            out: *mut f32,
        ) {
            let mut sums = [[_mm256_setzero_ps(); 2]; PANELS];
            let mut at: [*const $stored; PANELS] = [panels; PANELS];
            for (p, at) in at.iter_mut().enumerate() {
                // SAFETY: the beginning of panel p.
                *at = unsafe { panels.add(p * groups * WIDTH) };
            }
            for x in x {
                let x = _mm256_set1_ps(*x);
                for p in 0..PANELS {
                    // SAFETY: group after group of panel p, as many as `x` has values.
                    unsafe {
                        let (low, high) = $load(at[p]);
                        sums[p][0] = _mm256_fmadd_ps(x, low, sums[p][0]);
                        sums[p][1] = _mm256_fmadd_ps(x, high, sums[p][1]);
                        at[p] = at[p].add(WIDTH);
                    }
                }
            }
            for (p, sums) in sums.iter().enumerate() {
                // SAFETY: sixteen values for each panel.
                unsafe {
                    _mm256_storeu_ps(out.add(p * WIDTH), sums[0]);
                    _mm256_storeu_ps(out.add(p * WIDTH + 8), sums[1]);
                }
            }
        }
    };
}

one_row!(one_row_f32, f32, load_f32);
one_row!(one_row_bf16, u16, load_bf16);
one_row!(one_row_f16, u16, load_f16);

/// # Safety
/// Sixteen values are at `at`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_f32(at: *const f32) -> (__m256, __m256) {
    // SAFETY: by contract; unaligned loads.
    unsafe { (_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))) }
}

/// # Safety
/// Sixteen interleaved values are at `at`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_bf16(at: *const u16) -> (__m256, __m256) {
    // SAFETY: by contract; an unaligned load.
    let both = unsafe { _mm256_loadu_si256(at.cast()) };
    let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    (
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both)),
        _mm256_castsi256_ps(_mm256_and_si256(both, high)),
    )
}

/// # Safety
/// Sixteen values are at `at`.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn load_f16(at: *const u16) -> (__m256, __m256) {
    // SAFETY: by contract; unaligned loads.
    let (low, high) = unsafe {
        (
            _mm_loadu_si128(at.cast()),
            _mm_loadu_si128(at.add(8).cast()),
        )
    };
    (_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
}

/// See `scalar::tile`.
pub(super) fn tile(tile: Tile<'_>) {
    let depth = tile.piece.len() / WIDTH;
    let last = tile.rows - 1;
    assert!((1..=ROWS).contains(&tile.rows) && tile.piece.len() == depth * WIDTH);
    assert!(tile.x.len() >= last * tile.x_stride + depth);
    assert!(tile.out.len() >= last * tile.out_stride + WIDTH);
    // SAFETY: the processor has the instructions, see above, and the slices are as long as needed.
    unsafe {
        match tile.rows {
            1 => tile_rows::<1>(tile, depth),
            2 => tile_rows::<2>(tile, depth),
            3 => tile_rows::<3>(tile, depth),
            4 => tile_rows::<4>(tile, depth),
            5 => tile_rows::<5>(tile, depth),
            _ => tile_rows::<6>(tile, depth),
        }
    }
}

/// Inputs of a turn of the loop.
const UNROLL: usize = 4;

/// Where a tile is in its piece and its rows.
struct At {
    piece: *const f32,
    x: *const f32,
    /// Three rows after `x`: with it, the addresses of all rows are a pointer and a small multiple
    /// of the stride. It is not read from where there are three rows or fewer.
    x3: *const f32,
    stride: usize,
}

impl At {
    /// Adds the products of the next `K` inputs of `N` rows with their groups of weights.
    ///
    /// # Safety
    /// `K` groups of sixteen weights are at `piece`, and `K` inputs of row `r` are `r * stride`
    /// values after `x`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn step<const N: usize, const K: usize>(&mut self, sums: &mut [[__m256; 2]; N]) {
        for k in 0..K {
            // SAFETY: by contract.
            unsafe {
                let low = _mm256_loadu_ps(self.piece.add(k * WIDTH));
                let high = _mm256_loadu_ps(self.piece.add(k * WIDTH + 8));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = if row < 3 {
                        self.x.add(row * self.stride + k)
                    } else {
                        self.x3.add((row - 3) * self.stride + k)
                    };
                    let x = _mm256_broadcast_ss(&*x);
                    sums[0] = _mm256_fmadd_ps(x, low, sums[0]);
                    sums[1] = _mm256_fmadd_ps(x, high, sums[1]);
                }
            }
        }
        self.piece = self.piece.wrapping_add(K * WIDTH);
        self.x = self.x.wrapping_add(K);
        self.x3 = self.x3.wrapping_add(K);
    }
}

/// # Safety
/// `tile` has `N` rows and its slices are as long as [`tile`] asserts.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_rows<const N: usize>(tile: Tile<'_>, depth: usize) {
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    let mut at = At {
        piece: tile.piece.as_ptr(),
        x: tile.x.as_ptr(),
        x3: tile.x.as_ptr().wrapping_add(3 * tile.x_stride),
        stride: tile.x_stride,
    };
    for _ in 0..depth / UNROLL {
        // SAFETY: `UNROLL` of the `depth` inputs and groups are left.
        unsafe { at.step::<N, UNROLL>(&mut sums) };
    }
    for _ in 0..depth % UNROLL {
        // SAFETY: one of them is left.
        unsafe { at.step::<N, 1>(&mut sums) };
    }
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: sixteen values of each row of the output.
        unsafe {
            let out = tile.out.as_mut_ptr().add(row * tile.out_stride);
            for (half, &sum) in sums.iter().enumerate() {
                let out = out.add(half * 8);
                let sum = if tile.add {
                    _mm256_add_ps(_mm256_loadu_ps(out), sum)
                } else {
                    sum
                };
                _mm256_storeu_ps(out, sum);
            }
        }
    }
}
