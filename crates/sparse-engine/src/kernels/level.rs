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
