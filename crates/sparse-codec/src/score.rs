//! What a scale a little higher or lower would cost: how the encoder finds scales.

use crate::Word;
use crate::context::Contexts;
use crate::simd::vectorised;
use crate::tables::BIT;

/// Scales from 8 quarter octaves below to 7 above are compared at once.
pub(crate) const CANDIDATES: usize = 16;
pub(crate) const CENTRE: usize = 8;

/// Weights in a run of which every other is looked at.
const LONG_RUN: usize = 192;

/// Classes of |difference|: 0 to 7, then two per octave.
pub(crate) const BUCKETS: usize = 66;

/// The class of a difference.
///
/// From 8 up that is the exponent and the first mantissa bit of the magnitude as a float, which
/// vectorises where counting leading zeros does not.
#[inline(always)]
pub(crate) fn bucket(steps: i32) -> u8 {
    let magnitude = steps.unsigned_abs();
    // Low bits that could round up to the next class.
    let exact = magnitude & !(magnitude >> 8);
    let float = (exact as i32 as f32).to_bits() & 0x7fff_ffff;
    if magnitude < 8 {
        magnitude as u8
    } else {
        ((float >> 22) - 252) as u8
    }
}

/// The smallest magnitude in a class.
fn bucket_start(bucket: usize) -> f64 {
    if bucket < 8 {
        return bucket as f64;
    }
    let octave = (bucket - 2) / 2;
    (1.0 + 0.5 * (bucket % 2) as f64) * (octave as f64).exp2()
}

/// The classes of a run's changes that are enough to find its scale by: of a long run those of
/// every other weight, and `hasty` only of its first half.
pub(crate) fn look<'a, W: Word>(
    hasty: bool,
    shift: u32,
    base: &[W],
    fine: &[W],
    room: &'a mut Vec<u8>,
) -> &'a [u8] {
    let len = base.len();
    let (base, fine) = match hasty && len >= LONG_RUN {
        true => (&base[..len / 2], &fine[..len / 2]),
        false => (base, fine),
    };
    if len < LONG_RUN {
        room.resize(base.len(), 0);
        look_all(shift, base, fine, room);
        return room;
    }
    room.resize(base.len() / 2, 0);
    #[allow(unused_mut)]
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if W::BITS == 16 && crate::simd::level() == crate::simd::Level::Avx512 {
        // SAFETY: the features were just detected.
        done = unsafe { crate::score_avx512::look_half(shift, base, fine, room) };
    }
    look_half(
        shift,
        &base[2 * done..],
        &fine[2 * done..],
        &mut room[done..],
    );
    room
}

vectorised! {
    fn look_all<W: Word>(shift: u32, base: &[W], fine: &[W], out: &mut [u8]) {
        for ((out, base), &fine) in out.iter_mut().zip(base).zip(fine) {
            *out = bucket(base.steps_to(fine, shift));
        }
    }
}

vectorised! {
    fn look_half<W: Word>(shift: u32, base: &[W], fine: &[W], out: &mut [u8]) {
        let pairs = base.as_chunks::<2>().0.iter().zip(fine.as_chunks::<2>().0);
        for (out, (base, fine)) in out.iter_mut().zip(pairs) {
            *out = bucket(base[0].steps_to(fine[0], shift));
        }
    }
}

/// How many changes of each class were seen in each context.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    /// Weights take turns, so that a count need not wait for the one before it.
    rows: [Vec<[u32; BUCKETS]>; 2],
}

impl Census {
    pub(crate) fn new(contexts: Contexts) -> Self {
        Self {
            rows: std::array::from_fn(|_| vec![[0; BUCKETS]; contexts.count()]),
        }
    }

    pub(crate) fn add(&mut self, contexts: &[u8], buckets: &[u8]) {
        let [first, second] = &mut self.rows;
        let (pairs, rest) = contexts.as_chunks::<2>();
        let (pair_buckets, rest_buckets) = buckets.as_chunks::<2>();
        for (contexts, buckets) in pairs.iter().zip(pair_buckets) {
            first[usize::from(contexts[0])][usize::from(buckets[0])] += 1;
            second[usize::from(contexts[1])][usize::from(buckets[1])] += 1;
        }
        for (&context, &bucket) in rest.iter().zip(rest_buckets) {
            first[usize::from(context)][usize::from(bucket)] += 1;
        }
    }

    fn sums(&self) -> impl Iterator<Item = [u32; BUCKETS]> {
        let [first, second] = &self.rows;
        let pairs = first.iter().zip(second);
        pairs.map(|(a, b)| std::array::from_fn(|i| a[i] + b[i]))
    }
}

/// Relative costs of 16 neighbouring scales for each context and class, in 1/32 bits.
#[derive(Debug)]
pub(crate) struct Scorer {
    rows: Vec<[i16; CANDIDATES]>,
}

/// Weight of the Laplace prior, in observations per context.
const PRIOR: f64 = 30.0;

/// Probabilities of each class in each context before anything is seen.
pub(crate) fn priors(contexts: Contexts, mantissa: u32) -> Vec<[f64; BUCKETS]> {
    (0..contexts.count())
        .map(|context| {
            // Far below the scale the grid is logarithmic, and differences stop growing.
            let expected = f64::from(contexts.expected(context).min(4 * mantissa as i32 + 8));
            laplace((expected / 4.0).exp2())
        })
        .collect()
}

impl Scorer {
    /// From what was seen so far, over the priors.
    pub(crate) fn new(priors: &[[f64; BUCKETS]], census: &Census) -> Self {
        let costs: Vec<[i16; BUCKETS]> = census
            .sums()
            .zip(priors)
            .map(|(row, prior)| {
                let seen: f64 = row.iter().map(|&n| f64::from(n)).sum();
                std::array::from_fn(|b| {
                    let p = (f64::from(row[b]) + PRIOR * prior[b]) / (seen + PRIOR);
                    (f64::from(BIT) * -p.log2() + 0.5) as i16
                })
            })
            .collect();
        let last = costs.len() - 1;
        let mut rows = vec![[0; CANDIDATES]; costs.len() * BUCKETS];
        for (context, rows) in rows.chunks_mut(BUCKETS).enumerate() {
            for candidate in 0..CANDIDATES {
                let there = (context + candidate).saturating_sub(CENTRE).min(last);
                let (there, here) = (&costs[there], &costs[context]);
                for ((row, &there), &here) in rows.iter_mut().zip(there).zip(here) {
                    row[candidate] = (there - here).clamp(-500, 500);
                }
            }
        }
        Self { rows }
    }

    /// As [`Scorer::run`], given what [`look`] says of the run.
    pub(crate) fn run_looked(&self, contexts: &[u8], looked: &[u8]) -> [i32; CANDIDATES] {
        if looked.len() == contexts.len() {
            return self.run(contexts, looked);
        }
        let share = contexts.len() / looked.len().max(1);
        let contexts = &contexts[..2 * looked.len()];
        sum_half(&self.rows, contexts, looked).map(|cost| share as i32 * cost)
    }

    /// Cost of each candidate over a run of weights, relative to the scale that `contexts` has.
    pub(crate) fn run(&self, contexts: &[u8], buckets: &[u8]) -> [i32; CANDIDATES] {
        sum_run(&self.rows, contexts, buckets)
    }

    /// Adds the cost of each candidate for each weight to that weight's column.
    pub(crate) fn columns(
        &self,
        contexts: &[u8],
        buckets: &[u8],
        columns: &mut [[i32; CANDIDATES]],
    ) {
        sum_columns(&self.rows, contexts, buckets, columns);
    }
}

vectorised! {
    fn sum_columns(rows: &[[i16; CANDIDATES]], contexts: &[u8], buckets: &[u8], columns: &mut [[i32; CANDIDATES]]) {
        for ((&context, &bucket), sums) in contexts.iter().zip(buckets).zip(columns) {
            let row = &rows[usize::from(context) * BUCKETS + usize::from(bucket)];
            for (sum, &cost) in sums.iter_mut().zip(row) {
                *sum += i32::from(cost);
            }
        }
    }
}

vectorised! {
    fn sum_run(rows: &[[i16; CANDIDATES]], contexts: &[u8], buckets: &[u8]) -> [i32; CANDIDATES] {
        let mut sums = [0i32; CANDIDATES];
        // 64 costs of at most 500 fit 16 bits.
        for (contexts, buckets) in contexts.chunks(64).zip(buckets.chunks(64)) {
            let mut part = [0i16; CANDIDATES];
            for (&context, &bucket) in contexts.iter().zip(buckets) {
                let row = &rows[usize::from(context) * BUCKETS + usize::from(bucket)];
                for (sum, &cost) in part.iter_mut().zip(row) {
                    *sum += cost;
                }
            }
            for (sum, &part) in sums.iter_mut().zip(&part) {
                *sum += i32::from(part);
            }
        }
        sums
    }
}

vectorised! {
    fn sum_half(rows: &[[i16; CANDIDATES]], contexts: &[u8], looked: &[u8]) -> [i32; CANDIDATES] {
        let mut sums = [0i32; CANDIDATES];
        for (contexts, looked) in contexts.chunks(128).zip(looked.chunks(64)) {
            let mut part = [0i16; CANDIDATES];
            let mut places = [0u16; 64];
            let pairs = contexts.as_chunks::<2>().0.iter().zip(looked);
            for (place, (context, &bucket)) in places.iter_mut().zip(pairs) {
                *place = u16::from(context[0]) * BUCKETS as u16 + u16::from(bucket);
            }
            for &place in &places[..looked.len()] {
                let row = &rows[usize::from(place)];
                for (sum, &cost) in part.iter_mut().zip(row) {
                    *sum += cost;
                }
            }
            for (sum, &part) in sums.iter_mut().zip(&part) {
                *sum += i32::from(part);
            }
        }
        sums
    }
}

/// Probability of each class of difference when the mean magnitude is `mean` steps.
pub(crate) fn laplace(mean: f64) -> [f64; BUCKETS] {
    // Probability that the magnitude, rounded to whole steps, is at least `m`.
    let tail = |m: f64| {
        if m <= 0.0 {
            1.0
        } else {
            (-(m - 0.5) / mean).exp()
        }
    };
    let mut next = tail(bucket_start(0));
    std::array::from_fn(|b| {
        let here = std::mem::replace(&mut next, tail(bucket_start(b + 1)));
        (here - next).max(1e-6)
    })
}

/// The candidate that costs least, told apart by what a change from `previous` adds.
///
/// Returns the offset from the current scale in quarter octaves. `away` is the current scale's
/// distance from the previous one.
pub(crate) fn best(costs: &[i32; CANDIDATES], away: i32) -> i32 {
    // Costs of equals are told apart by the low bits: the one nearest to where it is wins.
    let mut ranks = [0i32; CANDIDATES];
    for (candidate, (rank, &cost)) in ranks.iter_mut().zip(costs).enumerate() {
        let offset = candidate as i32 - CENTRE as i32;
        let change = (away + offset).abs();
        let side = if change == 0 {
            16
        } else {
            160 + 30 * change.min(20)
        };
        let nearness = 2 * offset.abs() + i32::from(offset > 0);
        *rank = (cost + side) * 32 + nearness;
    }
    let least = ranks.iter().fold(i32::MAX, |least, &rank| least.min(rank));
    // What is behind the cost, halved, with its sign.
    let nearness = least.rem_euclid(32);
    if nearness % 2 == 1 {
        nearness / 2
    } else {
        -(nearness / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;

    #[test]
    fn buckets_rise_with_magnitude() {
        let mut last = 0;
        for magnitude in (0..2000).chain([1 << 20, i32::MAX]) {
            let b = bucket(magnitude);
            assert!(b >= last && usize::from(b) < BUCKETS);
            assert!(bucket_start(usize::from(b)) <= f64::from(magnitude));
            assert!(bucket_start(usize::from(b) + 1) > f64::from(magnitude));
            last = b;
        }
        assert_eq!(bucket(-5), bucket(5));
        assert_eq!(usize::from(bucket(i32::MIN)) + 2, BUCKETS);
    }

    #[test]
    fn both_codes_see_the_same_classes() {
        let words = |seed: u32| {
            let mut state = seed;
            std::iter::repeat_with(move || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as u16
            })
        };
        for shift in [0, 3] {
            let mut base: Vec<u16> = words(1)
                .map(|w| w >> shift << shift)
                .take(1 << 17)
                .collect();
            // Differences of every size.
            let moves = words(2).zip(words(3)).map(|(w, s)| w >> (s % 16) << shift);
            let mut fine: Vec<u16> = base
                .iter()
                .zip(moves)
                .map(|(b, m)| b.wrapping_add(m))
                .collect();
            // From the least to zero, the longest way.
            (base[2], fine[2]) = (0, u16::MAX << shift);
            let (mut room, mut plain) = (Vec::new(), vec![0; base.len() / 2]);
            look_half(shift, &base, &fine, &mut plain);
            assert_eq!(look(false, shift, &base, &fine, &mut room), plain);
            assert_eq!(plain[1], 32 - 2 * shift as u8);
        }
    }

    #[test]
    fn larger_changes_ask_for_a_larger_scale() {
        let contexts = Contexts::new(Layout::BF16);
        let scorer = Scorer::new(&priors(contexts, 7), &Census::new(contexts));
        // In the context of one expected step.
        let here = vec![40u8; 200];
        let small = best(&scorer.run(&here, &[0; 200]), 0);
        let large = best(&scorer.run(&here, &[bucket(3); 200]), 0);
        assert!(small <= -4 && large >= 3, "{small} {large}");
    }
}
