//! Choosing the next token.

use crate::Error;

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    temperature: f32,
    top_k: Option<usize>,
    top_p: Option<f32>,
    state: u64,
}

impl Sampling {
    /// The most likely token, always.
    pub fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            state: 0,
        }
    }

    /// At random: logits are divided by `temperature` (0 is greedy), then the `top_k` most likely
    /// tokens are kept, then of those the fewest that together have probability `top_p`. The same
    /// `seed` makes the same choices.
    ///
    /// # Errors
    /// If `temperature` is negative or not finite, `top_k` is 0, or `top_p` is not in (0, 1].
    pub fn random(
        temperature: f32,
        top_k: Option<usize>,
        top_p: Option<f32>,
        seed: u64,
    ) -> Result<Sampling, Error> {
        let wrong = |option, expected, found: String| {
            Err(Error::Option {
                option,
                expected,
                found,
            })
        };
        if !(temperature.is_finite() && temperature >= 0.0) {
            return wrong("temperature", "0 or more", temperature.to_string());
        }
        if top_k == Some(0) {
            return wrong("top-k", "1 or more", "0".to_owned());
        }
        if let Some(p) = top_p
            && !(p > 0.0 && p <= 1.0)
        {
            return wrong("top-p", "above 0 and at most 1", p.to_string());
        }
        Ok(Sampling {
            temperature,
            top_k,
            top_p,
            state: seed,
        })
    }

    /// Chooses a token.
    ///
    /// # Panics
    /// If there are no logits.
    pub fn choose(&mut self, logits: &[f32]) -> u32 {
        assert!(!logits.is_empty());
        if self.temperature == 0.0 {
            return argmax(logits);
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let by_logit = |a: &u32, b: &u32| {
            logits[*b as usize]
                .total_cmp(&logits[*a as usize])
                .then(a.cmp(b))
        };
        if let Some(k) = self.top_k
            && k < order.len()
        {
            order.select_nth_unstable_by(k - 1, by_logit);
            order.truncate(k);
        }
        order.sort_unstable_by(by_logit);
        let most = f64::from(logits[order[0] as usize]);
        let temperature = f64::from(self.temperature);
        let weights: Vec<f64> = order
            .iter()
            .map(|&token| ((f64::from(logits[token as usize]) - most) / temperature).exp())
            .collect();
        let mut total: f64 = weights.iter().sum();
        let mut kept = weights.len();
        if let Some(p) = self.top_p {
            let mut sum = 0.0;
            let enough = weights.iter().position(|weight| {
                sum += weight;
                sum >= f64::from(p) * total
            });
            if let Some(last) = enough {
                kept = last + 1;
                total = sum;
            }
        }
        let mut point = self.uniform() * total;
        for (token, weight) in order.iter().zip(&weights[..kept]) {
            point -= weight;
            if point < 0.0 {
                return *token;
            }
        }
        order[kept - 1]
    }

    /// In 0..1, by SplitMix64.
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The first of the largest.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (at, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = at;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 3.0, 1.0, 2.0];

    fn shares(mut sampling: Sampling) -> [f64; 4] {
        let mut counts = [0.0; 4];
        for _ in 0..20_000 {
            counts[sampling.choose(&LOGITS) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_most_likely_and_the_first_of_equals() {
        assert_eq!(Sampling::greedy().choose(&LOGITS), 1);
        assert_eq!(Sampling::greedy().choose(&[1.0, 2.0, 2.0]), 1);
    }

    #[test]
    fn shares_are_those_of_the_softmax_at_the_temperature() {
        for temperature in [0.5, 1.0, 2.0] {
            let found = shares(Sampling::random(temperature, None, None, 7).unwrap());
            let weights = LOGITS.map(|logit| f64::from(logit / temperature).exp());
            let total: f64 = weights.iter().sum();
            for (found, weight) in found.iter().zip(weights) {
                assert!((found - weight / total).abs() < 0.015);
            }
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let found = shares(Sampling::random(1.0, Some(2), None, 7).unwrap());
        assert!(found[0] == 0.0 && found[2] == 0.0 && found[3] > 0.2);
        // The two most likely have 0.64 + 0.24 of the probability.
        let found = shares(Sampling::random(1.0, None, Some(0.7), 7).unwrap());
        assert!(found[0] == 0.0 && found[2] == 0.0 && found[3] > 0.2);
        let found = shares(Sampling::random(1.0, None, Some(0.6), 7).unwrap());
        assert_eq!(found[1].round(), 1.0);
    }

    #[test]
    fn a_seed_repeats_its_choices_and_another_does_not() {
        let run = |seed| {
            let mut sampling = Sampling::random(1.0, None, None, seed).unwrap();
            (0..50)
                .map(|_| sampling.choose(&LOGITS))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn options_outside_of_their_range_are_refused() {
        assert!(Sampling::random(-1.0, None, None, 0).is_err());
        assert!(Sampling::random(f32::NAN, None, None, 0).is_err());
        assert!(Sampling::random(1.0, Some(0), None, 0).is_err());
        assert!(Sampling::random(1.0, None, Some(0.0), 0).is_err());
        assert!(Sampling::random(1.0, None, Some(1.1), 0).is_err());
    }
}
