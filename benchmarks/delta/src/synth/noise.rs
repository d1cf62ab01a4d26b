//! Fast random weights: one 64-bit draw makes two, by table look-up.

use multiversion::multiversion;

/// Quantiles of the normal distribution that 16 random bits choose from.
const QUANTILES: usize = 1 << 16;

/// How one row of a matrix is distributed.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Mean of the base's weights.
    pub mean: f32,
    /// Their standard deviation.
    pub scale: f32,
    /// Mean absolute update.
    pub update: f32,
}

/// A seeded source of rows.
pub struct Noise {
    state: u64,
    normal: Vec<f32>,
}

impl Noise {
    /// Prepares the table.
    pub fn new(seed: u64) -> Self {
        let quantile = |i| normal_quantile((f64::from(i) + 0.5) / QUANTILES as f64) as f32;
        Self {
            state: seed,
            normal: (0..QUANTILES as u32).map(quantile).collect(),
        }
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f32 {
        (splitmix(&mut self.state) >> 40) as f32 / (1u32 << 24) as f32
    }

    /// The exponential of a normal value with standard deviation `spread`.
    pub fn log_normal(&mut self, spread: f32) -> f32 {
        let index = splitmix(&mut self.state) >> 48;
        (spread * self.normal[index as usize]).exp()
    }

    /// Fills a row of both checkpoints with bf16 weights, little-endian.
    pub fn fill(&mut self, row: Row, base: &mut [u8], fine: &mut [u8]) {
        fill_row(&mut self.state, &self.normal, row, base, fine);
    }
}

#[multiversion(targets("x86_64+avx2+bmi2+fma", "aarch64+neon"))]
fn fill_row(state: &mut u64, normal: &[f32], row: Row, base: &mut [u8], fine: &mut [u8]) {
    // Uniform in +-2 update has a mean absolute value of `update`.
    let step = 2.0 * row.update / 32_768.0;
    for (base, fine) in base.chunks_mut(4).zip(fine.chunks_mut(4)) {
        let mut random = splitmix(state);
        for (base, fine) in base.chunks_exact_mut(2).zip(fine.chunks_exact_mut(2)) {
            let weight = row.mean + row.scale * normal[random as usize & (QUANTILES - 1)];
            let update = step * f32::from((random >> 16) as i16);
            random >>= 32;
            let stored = round_bf16(weight);
            base.copy_from_slice(&stored.to_le_bytes());
            let tuned = f32::from_bits(u32::from(stored) << 16) + update;
            fine.copy_from_slice(&round_bf16(tuned).to_le_bytes());
        }
    }
}

/// Rounds a finite number to the nearest bf16, ties to even.
#[inline]
fn round_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[inline]
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// The value below which a standard normal variable stays with `probability`, by
/// bisection of its distribution function.
fn normal_quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (-6.0, 6.0);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if normal_below(middle) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// Abramowitz and Stegun 26.2.17, good to 1e-7.
fn normal_below(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let polynomial = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let tail = polynomial.iter().rev().fold(0.0, |sum, c| t * (sum + c));
    let above = tail * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    if x < 0.0 { above } else { 1.0 - above }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Vec<f64> {
        let value = |w: &[u8]| f32::from_bits(u32::from(u16::from_le_bytes([w[0], w[1]])) << 16);
        bytes.chunks_exact(2).map(|w| f64::from(value(w))).collect()
    }

    #[test]
    fn a_row_has_the_scale_and_update_it_was_asked_for() {
        const COUNT: usize = 100_001;
        let (mut base, mut fine) = (vec![0; 2 * COUNT], vec![0; 2 * COUNT]);
        let row = Row {
            mean: 0.0,
            scale: 0.02,
            update: 1e-3,
        };
        Noise::new(3).fill(row, &mut base, &mut fine);
        let (base, fine) = (decode(&base), decode(&fine));
        let mean = |f: &dyn Fn(usize) -> f64| (0..COUNT).map(f).sum::<f64>() / COUNT as f64;
        let variance = mean(&|i| base[i] * base[i]);
        assert!((variance.sqrt() / 0.02 - 1.0).abs() < 0.02);
        let update = mean(&|i| (fine[i] - base[i]).abs());
        assert!((update / 1e-3 - 1.0).abs() < 0.02, "{update}");
    }

    #[test]
    fn rounding_to_bf16_is_to_even() {
        let tie = |bits: u32| round_bf16(f32::from_bits(bits));
        assert_eq!(tie(0x3f80_8000), 0x3f80);
        assert_eq!(tie(0x3f81_8000), 0x3f82);
        assert_eq!(tie(0xbf80_8001), 0xbf81);
    }
}
