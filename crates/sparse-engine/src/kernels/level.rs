//! Which instructions this processor has.

/// A set of instructions that a kernel is written for, chosen at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What every machine has.
    Scalar,
    /// AVX2 with FMA and F16C: x86-64 since 2013.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// The dot products of bytes of AVX-512 besides: servers since 2019, Zen since 2022. Kernels
    /// without them are those of [`Level::Avx2`].
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

/// Arithmetic over slices that the compiler makes vector code of: see [`vectorized`].
pub trait Vectorize {
    /// What it results in.
    type Output;

    /// Does it. Marked `#[inline(always)]`, as whatever it calls: only what becomes part of
    /// [`vectorized`] is compiled for its instructions.
    fn run(self) -> Self::Output;
}

/// Does `work`, compiled for the best instructions that this processor has: the same operations in
/// the same order, so the same result to the last bit.
///
/// ```
/// use sparse_engine::{Vectorize, vectorized};
///
/// struct Double<'a>(&'a mut [f32]);
///
/// impl Vectorize for Double<'_> {
///     type Output = ();
///     #[inline(always)]
///     fn run(self) {
///         self.0.iter_mut().for_each(|value| *value *= 2.0);
///     }
/// }
///
/// let mut values = [1.0, 2.5];
/// vectorized(Double(&mut values));
/// assert_eq!(values, [2.0, 5.0]);
/// ```
pub fn vectorized<V: Vectorize>(work: V) -> V::Output {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn avx2<V: Vectorize>(work: V) -> V::Output {
        work.run()
    }
    match Level::detect() {
        Level::Scalar => work.run(),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level says that the processor has AVX2, FMA and F16C.
        Level::Avx2 | Level::Vnni => unsafe { avx2(work) },
    }
}

impl Level {
    /// The best that this processor has.
    pub fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            let dots = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            return if dots { Level::Vnni } else { Level::Avx2 };
        }
        Level::Scalar
    }

    /// Every level that this processor has, the plainest first.
    #[cfg(test)]
    pub fn available() -> Vec<Level> {
        match Level::detect() {
            Level::Scalar => vec![Level::Scalar],
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => vec![Level::Scalar, Level::Avx2],
            #[cfg(target_arch = "x86_64")]
            Level::Vnni => vec![Level::Scalar, Level::Avx2, Level::Vnni],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dot<'a>(&'a [f32], &'a [f32]);

    impl Vectorize for Dot<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            let mut lanes = [0.0f32; 16];
            let (a, b) = (self.0.as_chunks::<16>().0, self.1.as_chunks::<16>().0);
            for (a, b) in a.iter().zip(b) {
                for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane += a * b;
                }
            }
            lanes.iter().sum()
        }
    }

    #[test]
    fn vector_code_rounds_as_plain_code_does() {
        let numbers = |seed: u32| -> Vec<f32> {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 3e6 - 1.0
            };
            (0..1024).map(|_| next()).collect()
        };
        // A fused product and sum would be rounded once, which shows in most of these.
        for seed in 0..50 {
            let (a, b) = (numbers(seed), numbers(seed + 1000));
            let (plain, vector) = (Dot(&a, &b).run(), vectorized(Dot(&a, &b)));
            assert_eq!(plain.to_bits(), vector.to_bits());
        }
    }
}
