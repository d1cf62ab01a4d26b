//! Which weights tables and scales are fitted to.

use crate::Scales;

/// Weights sampled at least in each tensor that has as many.
const EACH: u64 = 1 << 12;

/// How much of a checkpoint a [`crate::Fitter`] is given.
///
/// Scales and tables fitted to more weights suit the others better; fitting takes about as long
/// for each as coding it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    total: u64,
    wanted: u64,
}

impl Sampling {
    /// For the smallest result, given the number of weights in all tensors.
    #[must_use]
    pub fn thorough(total: u64) -> Self {
        let wanted = 1 << 21;
        Self { total, wanted }
    }

    /// So that fitting takes a small part of the time that coding does; a percent or two larger on
    /// checkpoints of a few million weights, and the same on those of some 60 million up.
    #[must_use]
    pub fn quick(total: u64) -> Self {
        let wanted = (total / 32).clamp(1 << 17, 1 << 21);
        Self { total, wanted }
    }

    /// The first weights of the segments to sample, spread evenly over a tensor's `weights`, of
    /// rows of `width`.
    pub fn starts(self, weights: u64, width: usize) -> impl Iterator<Item = u64> {
        let segment = Scales::segment_for(width) as u64;
        let segments = weights.div_ceil(segment);
        let share = u128::from(weights) * u128::from(self.wanted) / u128::from(self.total.max(1));
        let wanted = (share as u64).max(EACH).div_ceil(segment).min(segments);
        (0..wanted).map(move |i| ((2 * i + 1) * segments / (2 * wanted)) * segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_and_as_large_as_asked() {
        let sampling = Sampling::thorough(1 << 24);
        let starts: Vec<u64> = sampling.starts(1 << 20, 1024).collect();
        assert_eq!(starts.len(), (1 << 17) / 256);
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == 2048));
        let few: Vec<u64> = Sampling::quick(1 << 24).starts(100, 10).collect();
        assert_eq!(few, [0], "all of a small tensor");
        assert!(Sampling::quick(1 << 30) == Sampling::thorough(1 << 30));
    }
}
