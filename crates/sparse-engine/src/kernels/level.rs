//! Which instructions this processor has.

/// A set of instructions that a kernel is written for, chosen at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What every machine has.
    Scalar,
    /// AVX2 with FMA and F16C: x86-64 since 2013.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Level {
    /// The best that this processor has.
    pub fn detect() -> Level {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
        {
            return Level::Avx2;
        }
        Level::Scalar
    }

    /// Every level that this processor has, the plainest first.
    #[cfg(test)]
    pub fn available() -> Vec<Level> {
        let best = Level::detect();
        if best == Level::Scalar {
            vec![Level::Scalar]
        } else {
            vec![Level::Scalar, best]
        }
    }
}
