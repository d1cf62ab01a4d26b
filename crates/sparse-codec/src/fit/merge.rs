//! Tables from counts: one for each run of contexts that are alike.

use crate::context::ESCAPE;
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

/// One table for each run of contexts, runs joined while that saves bits.
pub(super) fn merge(counts: &[[f64; 256]], share: f64) -> TableSet {
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
        if saving(i) <= 0.0 {
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
            let total: f64 = group.counts.iter().sum();
            let scale = (f64::from(u32::MAX) / 4.0 / total).min(1.0);
            let counts = group.counts.map(|n| (n * scale).ceil() as u32);
            frequencies(&counts, group.symmetric)
        })
        .collect();
    TableSet::from_frequencies(groups.iter().map(|g| g.start).collect(), tables)
}
