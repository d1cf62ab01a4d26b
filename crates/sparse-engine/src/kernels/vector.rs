//! What a transformer does to rows of activations beside products: norms, activations, softmax.
//!
//! The bodies are plain Rust that the compiler turns into vector code; each is compiled once for
//! every [`Level`], which is what makes the twins one.

use super::Level;

/// Compiles a body once per level.
macro_rules! per_level {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?, $body:path) => {
        $(#[$doc])*
        pub fn $name(level: Level, $($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $type),*) $(-> $result)? {
                $body($($arg),*)
            }
            match level {
                Level::Scalar => $body($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: the level says that the processor has AVX2 and FMA.
                Level::Avx2 | Level::Vnni => unsafe { avx2($($arg),*) },
            }
        }
    };
}

per_level! {
    /// GELU by the tanh approximation ("gelu_new"), in place.
    gelu_tanh(values: &mut [f32]), body::gelu_tanh
}
per_level! {
    /// GELU by the error function, in place, to 2e-7.
    gelu_erf(values: &mut [f32]), body::gelu_erf
}
per_level! {
    /// GELU by a logistic function of 1.702 x ("quick_gelu"), in place.
    gelu_quick(values: &mut [f32]), body::gelu_quick
}
per_level! {
    /// x / (1 + exp(-x)), in place.
    silu(values: &mut [f32]), body::silu
}
per_level! {
    /// max(x, 0), in place.
    relu(values: &mut [f32]), body::relu
}
per_level! {
    /// `values[i] *= factors[i]`.
    multiply(values: &mut [f32], factors: &[f32]), body::multiply
}
per_level! {
    /// `values[i] += addends[i]`.
    add(values: &mut [f32], addends: &[f32]), body::add
}
per_level! {
    /// `abs[i] += |values[i]|` and `squares[i] += values[i]²`.
    add_moments(abs: &mut [f64], squares: &mut [f64], values: &[f32]), body::add_moments
}
per_level! {
    /// `values[i] *= factor`.
    scale(values: &mut [f32], factor: f32), body::scale
}
per_level! {
    /// Layer normalisation of one row: zero mean, unit variance (of the population), then
    /// `weight` and `bias`.
    layer_norm(row: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]),
    body::layer_norm
}
per_level! {
    /// Root-mean-square normalisation of one row, then `weight`.
    rms_norm(row: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]), body::rms_norm
}
per_level! {
    /// Replaces values by `exp(value - maximum)` and returns their sum.
    exp_sum(values: &mut [f32], maximum: f32) -> f32, body::exp_sum
}
per_level! {
    /// The largest value; negative infinity for none.
    maximum(values: &[f32]) -> f32, body::maximum
}
per_level! {
    /// Whether all values are finite.
    all_finite(values: &[f32]) -> bool, body::all_finite
}

mod body {
    /// Independent sums, so that additions do not wait for one another.
    const LANES: usize = 16;

    /// exp to 2 units in the last place; saturates outside of -87..88, keeps NaN.
    #[inline(always)]
    fn exp(x: f32) -> f32 {
        /// Adding it rounds to an integer, which is then in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let x = if x > 88.0 { 88.0 } else { x };
        let x = if x < -87.0 { -87.0 } else { x };
        let rounded = x * std::f32::consts::LOG2_E + ROUND;
        let n = rounded - ROUND;
        let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
        let p = 1.987_569_2e-4;
        let p = p * r + 1.398_2e-3;
        let p = p * r + 8.333_452e-3;
        let p = p * r + 4.166_579_6e-2;
        let p = p * r + 1.666_666_5e-1;
        let p = p * r + 0.5;
        let p = p * r * r + r + 1.0;
        let exponent = rounded.to_bits().wrapping_add(127) << 23;
        p * f32::from_bits(exponent)
    }

    #[inline(always)]
    fn tanh(x: f32) -> f32 {
        1.0 - 2.0 / (exp(2.0 * x) + 1.0)
    }

    /// Abramowitz and Stegun 7.1.26, error below 1.5e-7.
    #[inline(always)]
    fn erf(x: f32) -> f32 {
        let a = x.abs();
        let t = 1.0 / (1.0 + 0.327_591_1 * a);
        let p = 1.061_405_4;
        let p = p * t - 1.453_152_1;
        let p = p * t + 1.421_413_8;
        let p = p * t - 0.284_496_74;
        let p = p * t + 0.254_829_6;
        (1.0 - p * t * exp(-a * a)).copysign(x)
    }

    #[inline(always)]
    pub fn gelu_tanh(values: &mut [f32]) {
        for x in values {
            let inner = 0.797_884_6 * (*x + 0.044_715 * *x * *x * *x);
            *x = 0.5 * *x * (1.0 + tanh(inner));
        }
    }

    #[inline(always)]
    pub fn gelu_erf(values: &mut [f32]) {
        for x in values {
            *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }

    #[inline(always)]
    pub fn gelu_quick(values: &mut [f32]) {
        for x in values {
            *x /= 1.0 + exp(-1.702 * *x);
        }
    }

    #[inline(always)]
    pub fn silu(values: &mut [f32]) {
        for x in values {
            *x /= 1.0 + exp(-*x);
        }
    }

    #[inline(always)]
    pub fn relu(values: &mut [f32]) {
        for x in values {
            *x = if *x < 0.0 { 0.0 } else { *x };
        }
    }

    #[inline(always)]
    pub fn multiply(values: &mut [f32], factors: &[f32]) {
        for (x, factor) in values.iter_mut().zip(factors) {
            *x *= factor;
        }
    }

    #[inline(always)]
    pub fn add(values: &mut [f32], addends: &[f32]) {
        for (x, addend) in values.iter_mut().zip(addends) {
            *x += addend;
        }
    }

    #[inline(always)]
    pub fn add_moments(abs: &mut [f64], squares: &mut [f64], values: &[f32]) {
        for ((abs, square), &x) in abs.iter_mut().zip(squares).zip(values) {
            let x = f64::from(x);
            *abs += x.abs();
            *square += x * x;
        }
    }

    #[inline(always)]
    pub fn scale(values: &mut [f32], factor: f32) {
        for x in values {
            *x *= factor;
        }
    }

    #[inline(always)]
    fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
        let mut sums = [0.0; LANES];
        let chunks = values.chunks_exact(LANES);
        let rest: f32 = chunks.remainder().iter().map(|&x| term(x)).sum();
        for chunk in chunks {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += term(x);
            }
        }
        sums.iter().sum::<f32>() + rest
    }

    #[inline(always)]
    pub fn layer_norm(row: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
        let count = row.len() as f32;
        let mean = sum(row, |x| x) / count;
        let variance = sum(row, |x| (x - mean) * (x - mean)) / count;
        let factor = 1.0 / (variance + epsilon).sqrt();
        for (((out, x), weight), bias) in out.iter_mut().zip(row).zip(weight).zip(bias) {
            *out = (x - mean) * factor * weight + bias;
        }
    }

    #[inline(always)]
    pub fn rms_norm(row: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        let mean = sum(row, |x| x * x) / row.len() as f32;
        let factor = 1.0 / (mean + epsilon).sqrt();
        for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
            *out = x * factor * weight;
        }
    }

    #[inline(always)]
    pub fn exp_sum(values: &mut [f32], maximum: f32) -> f32 {
        for x in values.iter_mut() {
            *x = exp(*x - maximum);
        }
        sum(values, |x| x)
    }

    #[inline(always)]
    pub fn maximum(values: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let chunks = values.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let all = lanes.iter().chain(rest);
        all.fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
    }

    #[inline(always)]
    pub fn all_finite(values: &[f32]) -> bool {
        // Zero times a finite value is zero, times any other NaN.
        sum(values, |x| x * 0.0) == 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Vec<f32> {
        (-2000..2000).map(|i| i as f32 / 100.0).collect()
    }

    /// erf in double precision, by its Maclaurin series; beyond 4 it is 1 to 2e-8.
    fn erf(x: f64) -> f64 {
        if x.abs() > 4.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            let n = f64::from(n);
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    type Kernel = fn(Level, &mut [f32]);
    type Reference = fn(f64) -> f64;

    #[test]
    fn activations_are_those_of_their_definitions_at_every_level() {
        let cases: [(Kernel, Reference); 5] = [
            (gelu_tanh, |x| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }),
            (gelu_erf, |x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()))),
            (gelu_quick, |x| x / (1.0 + (-1.702 * x).exp())),
            (silu, |x| x / (1.0 + (-x).exp())),
            (relu, |x| x.max(0.0)),
        ];
        for level in Level::available() {
            for (which, (function, reference)) in cases.iter().enumerate() {
                let mut found = grid();
                function(level, &mut found);
                for (x, found) in grid().into_iter().zip(found) {
                    let expected = reference(f64::from(x));
                    let error = (f64::from(found) - expected).abs();
                    let limit = 3e-6 * expected.abs().max(0.2);
                    assert!(error < limit, "{which} of {x}: {found}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn sums_of_exponentials_are_near_those_in_double_precision() {
        for level in Level::available() {
            let mut values = grid();
            let most = maximum(level, &values);
            assert_eq!(most, 19.99);
            let expected: f64 = values.iter().map(|&x| f64::from(x - most).exp()).sum();
            let found = exp_sum(level, &mut values, most);
            assert!((f64::from(found) / expected - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn norms_are_those_of_their_definitions() {
        let row: Vec<f32> = (0..37).map(|i| (i * i % 17) as f32 - 3.0).collect();
        let weight: Vec<f32> = (0..37).map(|i| 1.0 + i as f32 / 37.0).collect();
        let bias: Vec<f32> = (0..37).map(|i| i as f32 / 10.0).collect();
        let values = || row.iter().map(|&x| f64::from(x));
        let mean = values().sum::<f64>() / 37.0;
        let variance = values().map(|x| (x - mean).powi(2)).sum::<f64>() / 37.0;
        let square = values().map(|x| x * x).sum::<f64>() / 37.0;
        for level in Level::available() {
            let mut out = vec![0.0; 37];
            layer_norm(level, &row, &weight, &bias, 1e-5, &mut out);
            for (i, &found) in out.iter().enumerate() {
                let expected = (f64::from(row[i]) - mean) / (variance + 1e-5).sqrt();
                let expected = expected * f64::from(weight[i]) + f64::from(bias[i]);
                assert!((f64::from(found) - expected).abs() < 1e-5);
            }
            rms_norm(level, &row, &weight, 1e-6, &mut out);
            for (i, &found) in out.iter().enumerate() {
                let expected = f64::from(row[i]) / (square + 1e-6).sqrt() * f64::from(weight[i]);
                assert!((f64::from(found) - expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn nan_and_infinity_are_seen_and_kept() {
        for level in Level::available() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 15, 16, 40] {
                    let mut values = vec![1.0; 41];
                    assert!(all_finite(level, &values));
                    values[at] = bad;
                    assert!(!all_finite(level, &values));
                }
            }
            let mut values = [f32::NAN];
            silu(level, &mut values);
            assert!(values[0].is_nan());
        }
    }

    #[test]
    fn elementwise_sums_and_products() {
        for level in Level::available() {
            let mut values = vec![2.0; 19];
            multiply(level, &mut values, &[3.0; 19]);
            add(level, &mut values, &[1.0; 19]);
            scale(level, &mut values, 2.0);
            assert_eq!(values, [14.0; 19]);
            let (mut abs, mut squares) = ([1.0; 19], [2.0; 19]);
            add_moments(level, &mut abs, &mut squares, &[-3.0; 19]);
            assert_eq!((abs, squares), ([4.0; 19], [11.0; 19]));
        }
    }
}
