//! Weight matrices in panels: sixteen outputs side by side, input by input.
//!
//! A matrix of N outputs and K inputs becomes ceil(N / 16) panels of K groups of sixteen values,
//! value j of group k being the weight from input k to output 16p + j. Both products that an
//! engine needs read that front to back: one row of activations streams each panel once, many
//! rows reuse a piece of it from the first-level cache. Values keep their stored type.

use sparse_checkpoint::Dtype;

use super::Level;

/// Outputs in a panel: two AVX2 registers of f32.
pub(crate) const WIDTH: usize = 16;

/// The values of a matrix in panels, in the type they were stored in. Outputs beyond the last are
/// zero.
#[derive(Debug)]
pub(crate) enum Values {
    F32(Vec<f32>),
    /// Each group interleaved, output j before output j + 8: one 32-bit lane then holds both, and
    /// each becomes an f32 by a shift or a mask.
    Bf16(Vec<u16>),
    F16(Vec<u16>),
}

impl Values {
    /// Zeros for `panels` panels of `inputs` groups, or `None` for a type that is not run.
    pub(crate) fn zeros(dtype: Dtype, panels: usize, inputs: usize) -> Option<Values> {
        let len = panels * inputs * WIDTH;
        match dtype {
            Dtype::F32 => Some(Values::F32(vec![0.0; len])),
            Dtype::BF16 => Some(Values::Bf16(vec![0; len])),
            Dtype::F16 => Some(Values::F16(vec![0; len])),
            _ => None,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Values::F32(values) => values.len() * 4,
            Values::Bf16(values) | Values::F16(values) => values.len() * 2,
        }
    }

    /// Groups `range` of panel-major storage as f32, into `out`.
    pub(crate) fn widen(&self, level: Level, range: std::ops::Range<usize>, out: &mut [f32]) {
        let range = range.start * WIDTH..range.end * WIDTH;
        match self {
            Values::F32(values) => out.copy_from_slice(&values[range]),
            Values::Bf16(values) => widen_bf16(level, &values[range], out),
            Values::F16(values) => widen_f16(level, &values[range], out),
        }
    }

    /// The weight from input `k` to output `n`, of a matrix with `inputs` inputs.
    pub(crate) fn at(&self, inputs: usize, n: usize, k: usize) -> f32 {
        let group = (n / WIDTH * inputs + k) * WIDTH;
        match self {
            Values::F32(values) => values[group + n % WIDTH],
            Values::Bf16(values) => bf16_to_f32(values[group + bf16_slot(n % WIDTH)]),
            Values::F16(values) => f16_to_f32(values[group + n % WIDTH]),
        }
    }
}

/// Where output `lane` of a bf16 group is stored.
pub(crate) const fn bf16_slot(lane: usize) -> usize {
    lane % 8 * 2 + lane / 8
}

/// Exact.
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Exact.
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    let value = if magnitude >= 0x7c00 {
        f32::from_bits(0x7f80_0000 | (magnitude & 0x3ff) << 13)
    } else {
        // Half's exponent is 112 below single's; the product also normalises subnormals.
        f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23)
    };
    f32::from_bits(value.to_bits() | sign)
}

fn widen_bf16(level: Level, values: &[u16], out: &mut [f32]) {
    match level {
        Level::Scalar => widen_bf16_scalar(values, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level says that the processor has AVX2.
        Level::Avx2 | Level::Vnni => unsafe { widen_bf16_avx2(values, out) },
    }
}

fn widen_bf16_scalar(values: &[u16], out: &mut [f32]) {
    for (group, out) in values.chunks_exact(WIDTH).zip(out.chunks_exact_mut(WIDTH)) {
        for (lane, out) in out.iter_mut().enumerate() {
            *out = bf16_to_f32(group[bf16_slot(lane)]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn widen_bf16_avx2(values: &[u16], out: &mut [f32]) {
    use std::arch::x86_64::*;
    let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    for (group, out) in values.chunks_exact(WIDTH).zip(out.chunks_exact_mut(WIDTH)) {
        // SAFETY: a group is 32 bytes, its place in `out` is 64; no load or store needs alignment.
        unsafe {
            let both = _mm256_loadu_si256(group.as_ptr().cast());
            let first = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both));
            let second = _mm256_castsi256_ps(_mm256_and_si256(both, high));
            _mm256_storeu_ps(out.as_mut_ptr(), first);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), second);
        }
    }
}

fn widen_f16(level: Level, values: &[u16], out: &mut [f32]) {
    match level {
        Level::Scalar => {
            for (out, &value) in out.iter_mut().zip(values) {
                *out = f16_to_f32(value);
            }
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level says that the processor has AVX2 and F16C.
        Level::Avx2 | Level::Vnni => unsafe { widen_f16_avx2(values, out) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn widen_f16_avx2(values: &[u16], out: &mut [f32]) {
    use std::arch::x86_64::*;
    for (eight, out) in values.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
        // SAFETY: eight values are 16 bytes, their place in `out` is 32; unaligned instructions.
        unsafe {
            let halves = _mm_loadu_si128(eight.as_ptr().cast());
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(halves));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_as_the_half_crate_does() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = f16_to_f32(bits);
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:#06x}: {found} instead of {expected}"
            );
            let expected = half::bf16::from_bits(bits).to_f32();
            assert!(bf16_to_f32(bits).to_bits() == expected.to_bits() || expected.is_nan());
        }
    }

    #[test]
    fn levels_widen_alike() {
        // Signalling NaNs become quiet ones in one of the two, so they are left out.
        let values: Vec<u16> = (0..=u16::MAX)
            .filter(|&bits| !half::f16::from_bits(bits).is_nan() && bits & 0x7f80 != 0x7f80)
            .collect();
        let values = &values[..values.len() / WIDTH * WIDTH];
        let bits = |out: Vec<f32>| out.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        for widen in [widen_bf16, widen_f16] {
            let [mut expected, mut found] = [(); 2].map(|()| vec![0.0; values.len()]);
            widen(Level::Scalar, values, &mut expected);
            for level in Level::available() {
                widen(level, values, &mut found);
                assert_eq!(bits(found.clone()), bits(expected.clone()), "{level:?}");
            }
        }
    }
}
