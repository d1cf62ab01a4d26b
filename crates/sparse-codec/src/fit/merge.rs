//! Tables from counts: one for each run of contexts that are alike.

use crate::context::{DIRECT, ESCAPE, UNCHANGED};
use crate::rans::PROB_SCALE;
use crate::tables::{TableSet, frequencies};

/// Bits that a table's parameter fitted to a sample costs for each weight that a sampled one
/// stands for: twice the expected excess of 1 / (2 ln 2).
const OVERFIT: f64 = 1.44;

/// Neighbouring contexts whose tables cost more than they save.
struct Group {
    start: u8,
    counts: [f64; 256],
    bits: f64,
    symmetric: bool,
    share: f64,
}

impl Group {
    fn new(start: u8, counts: [f64; 256], share: f64) -> Self {
        let (bits, symmetric) = bits(&counts, share);
        Self {
            start,
            counts,
            bits,
            symmetric,
            share,
        }
    }

    fn merged(&self, next: &Self) -> Self {
        let mut counts = self.counts;
        for (sum, &more) in counts.iter_mut().zip(&next.counts) {
            *sum += more;
        }
        Self::new(self.start, counts, self.share)
    }
}

/// Bits of the symbols and of their table, and whether a symmetric table is the cheaper one.
fn bits(counts: &[f64; 256], share: f64) -> (f64, bool) {
    let total: f64 = counts.iter().sum();
    if total == 0.0 {
        return (0.0, true);
    }
    let (mut plain, mut mirrored, mut used) = (0.0, 0.0, 0.0);
    for (symbol, &n) in counts.iter().enumerate() {
        if n > 0.0 {
            plain -= n * (n / total).log2();
            let mirror = if (1..=241).contains(&symbol) {
                counts[242 - symbol]
            } else {
                n
            };
            mirrored -= n * ((n + mirror) / 2.0 / total).log2();
            used += 1.0;
        }
    }
    let each = 6.0 + OVERFIT * (share - 1.0);
    let (plain, mirrored) = (
        plain + each * used + 12.0,
        mirrored + 0.5 * each * used + 12.0,
    );
    (plain.min(mirrored), mirrored <= plain)
}

/// Sampled differences, of either sign, from which on the rest follows a curve.
const TAIL: f64 = 64.0;
/// A symbol this likely is worth a table's least frequency: what that costs all others is what
/// escapes of it would cost.
const WORTH: f64 = 0.2 / PROB_SCALE as f64;

/// Counts with the rare large differences as a geometric distribution has them: those that a
/// sample has none of get a symbol where they will be met, too, and escapes are rare.
fn smoothed(counts: &[f64; 256], share: f64) -> [f64; 256] {
    let unchanged = usize::from(UNCHANGED);
    let both = |distance: usize| counts[unchanged + distance] + counts[unchanged - distance];
    let most = DIRECT as usize;
    let (mut start, mut tail, mut excess) = (most + 1, 0.0, 0.0);
    while start > 1 && tail + both(start - 1) <= TAIL * share {
        excess += tail;
        tail += both(start - 1);
        start -= 1;
    }
    let mut smooth = *counts;
    if tail == 0.0 {
        return smooth;
    }
    // The mean of a geometric distribution from zero on, and the ratio that follows from it.
    let mean = excess / tail;
    let ratio = mean / (1.0 + mean);
    let worth = WORTH * counts.iter().sum::<f64>();
    let (mut each, mut left) = (tail * (1.0 - ratio) / 2.0, tail);
    for distance in start..=most {
        let here = if each >= worth { each } else { 0.0 };
        smooth[unchanged + distance] = here;
        smooth[unchanged - distance] = here;
        left -= 2.0 * here;
        each *= ratio;
    }
    smooth[usize::from(ESCAPE)] += left.max(0.0);
    smooth
}

/// One table for each run of contexts, runs joined while that saves bits, or there are more than
/// `most`.
pub(super) fn merge(counts: &[[f64; 256]], share: f64, most: usize) -> TableSet {
    let mut groups: Vec<Group> = Vec::new();
    for (context, counts) in counts.iter().enumerate() {
        if counts.iter().any(|&n| n > 0.0) {
            groups.push(Group::new(context as u8, *counts, share));
        }
    }
    let mut joins: Vec<Group> = groups.windows(2).map(|p| p[0].merged(&p[1])).collect();
    loop {
        let saving = |i: usize| groups[i].bits + groups[i + 1].bits - joins[i].bits;
        let Some(i) = (0..joins.len()).max_by(|&a, &b| saving(a).total_cmp(&saving(b))) else {
            break;
        };
        if saving(i) <= 0.0 && groups.len() <= most {
            break;
        }
        groups.remove(i + 1);
        groups[i] = joins.remove(i);
        if i > 0 {
            joins[i - 1] = groups[i - 1].merged(&groups[i]);
        }
        if i < joins.len() {
            joins[i] = groups[i].merged(&groups[i + 1]);
        }
    }
    if let Some(first) = groups.first_mut() {
        first.start = 0;
    } else {
        let mut counts = [0.0; 256];
        counts[usize::from(ESCAPE)] = 1.0;
        groups.push(Group::new(0, counts, share));
    }
    // Contexts that the sample lacks belong to the nearer neighbour.
    for i in 1..groups.len() {
        let last = counts[..usize::from(groups[i].start)]
            .iter()
            .rposition(|c| c.iter().any(|&n| n > 0.0))
            .unwrap_or(0);
        groups[i].start =
            ((last + usize::from(groups[i].start)) / 2 + 1).min(usize::from(groups[i].start)) as u8;
    }
    let tables = groups
        .iter()
        .map(|group| {
            let smooth = smoothed(&group.counts, share);
            let total: f64 = smooth.iter().sum();
            // Fractions of a count say something where counts are few.
            let scale = f64::from(u32::MAX) / 8.0 / total;
            let counts = smooth.map(|n| (n * scale).ceil() as u32);
            frequencies(&counts, group.symmetric)
        })
        .collect();
    TableSet::from_frequencies(groups.iter().map(|g| g.start).collect(), tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_differences_follow_a_curve_and_what_is_left_escapes() {
        let at = |distance: i32| (i32::from(UNCHANGED) + distance) as usize;
        let mut counts = [0.0; 256];
        counts[at(0)] = 5000.0;
        for distance in 1..=3 {
            counts[at(distance)] = 1000.0;
            counts[at(-distance)] = 900.0;
        }
        // A sample has some of the rare ones, on one side.
        for distance in [4, 5, 5, 7, 8, 10, 30] {
            counts[at(distance)] += 3.0;
        }
        let smooth = smoothed(&counts, 1.0);
        assert_eq!(smooth[at(-3)..=at(3)], counts[at(-3)..=at(3)]);
        for distance in 4..30 {
            assert_eq!(smooth[at(distance)], smooth[at(-distance)]);
            assert!(smooth[at(distance)] >= smooth[at(distance + 1)]);
        }
        assert!(smooth[at(6)] > 0.0 && smooth[at(30)] == 0.0);
        assert!(smooth[usize::from(ESCAPE)] > 0.0);
        let (before, after) = (counts.iter().sum::<f64>(), smooth.iter().sum::<f64>());
        assert!((before - after).abs() < 1e-6 * before, "{before} {after}");
    }

    #[test]
    fn counts_without_a_tail_stay() {
        let mut counts = [0.0; 256];
        counts[usize::from(UNCHANGED)] = 70.0;
        assert_eq!(smoothed(&counts, 4.0), counts);
    }
}
