//! Rank codes: for each table, its differences in the order of how likely they are.
//!
//! A code is a class in unary, whose length no table is needed to read, and as many plain bits as
//! the class has. Neither has to wait for the weight before it, which is what makes reading them
//! several times as fast as an entropy coder, for some hundredths more bytes.

use crate::context::{ESCAPE, UNCHANGED};
use crate::rans::Frequencies;

/// Codes that there are at most: more tables share them.
pub(crate) const CODES: usize = 32;
/// Ranks of a code, the escape among them.
pub(crate) const RANKS: usize = 32;
/// Classes of a code.
pub(crate) const CLASSES: usize = 8;
/// Differences with a rank lie from so much below zero to one less above it.
pub(crate) const NEAR: i32 = 16;
/// What stands for the escape among the differences.
pub(crate) const ESCAPED: i8 = i8::MIN;

/// Low bits beyond those of the context, at most.
const MOST_COARSE: u32 = 3;
/// Bits of a class together with low bits beyond those of the context, at most.
const MOST_BITS: u32 = 7;
const MOST_CLASS_BITS: u32 = 5;
/// What an escape is taken to cost beside its code, in bits.
const ESCAPE_BITS: u64 = 24;

/// The codes of a table set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RankCodes {
    /// For each context, its code, from 0 to 31, times 8.
    pub(crate) codes: [u8; 256],
    /// For each context, low bits beyond those that the context has.
    pub(crate) coarse: [u8; 256],
    /// For each code and class, the first rank of the class, and from bit 5 on how many bits it
    /// has.
    pub(crate) classes: [u8; CODES * CLASSES],
    /// For each code and rank the difference, or [`ESCAPED`].
    pub(crate) differences: [i8; CODES * RANKS],
    /// For each code and difference, from -[`NEAR`] on, the rank's place in its class, and from
    /// bit 5 on the class; that of the escape for what has no rank.
    pub(crate) places: [u8; CODES * RANKS],
    /// As [`RankCodes::places`], of each code's escape.
    pub(crate) escapes: [u8; CODES],
    /// For each context, bits of a weight by the frequencies, and by the code, in 1/256.
    pub(crate) bits: [[u32; 2]; 256],
}

/// One table's code.
struct Code {
    coarse: u32,
    /// Differences and the escape, the likeliest first.
    ranks: Vec<(i8, u64)>,
    class_bits: Vec<u32>,
    /// Expected bits, times the sum of all frequencies.
    cost: u64,
}

impl RankCodes {
    /// The codes for tables, given by the first context of each and its frequencies.
    pub(crate) fn new(starts: &[u8], tables: &[Frequencies]) -> Self {
        let mut all = Self {
            codes: [0; 256],
            coarse: [0; 256],
            classes: [0; CODES * CLASSES],
            differences: [ESCAPED; CODES * RANKS],
            places: [0; CODES * RANKS],
            escapes: [0; CODES],
            bits: [[0; 2]; 256],
        };
        let count = tables.len().min(CODES);
        for code in 0..count {
            let share = code * tables.len() / count..(code + 1) * tables.len() / count;
            let first = usize::from(starts[share.start]);
            let end = starts.get(share.end).map_or(256, |&s| usize::from(s));
            let mut sums = [0u64; 256];
            for table in &tables[share.clone()] {
                for (sum, &f) in sums.iter_mut().zip(table) {
                    *sum += u64::from(f);
                }
            }
            let best = Code::best(&sums);
            all.codes[first..end].fill((code * CLASSES) as u8);
            all.coarse[first..end].fill(best.coarse as u8);
            all.bits[first..end].fill([entropy(&sums), best.bits(&sums)]);
            all.place(code, &best);
        }
        all
    }

    /// Fills in one code's part of the tables.
    fn place(&mut self, code: usize, best: &Code) {
        let mut first = 0;
        let mut of_ranks = [0u8; RANKS];
        for (class, &bits) in best.class_bits.iter().enumerate() {
            self.classes[code * CLASSES + class] = first as u8 | (bits as u8) << 5;
            for (offset, place) in of_ranks[first..].iter_mut().take(1 << bits).enumerate() {
                *place = offset as u8 | (class as u8) << 5;
            }
            first += 1 << bits;
        }
        let escape = best.ranks.iter().position(|r| r.0 == ESCAPED);
        // Every code has an escape.
        self.escapes[code] = of_ranks[escape.unwrap_or(0)];
        self.places[code * RANKS..][..RANKS].fill(self.escapes[code]);
        for (rank, &(difference, _)) in best.ranks.iter().enumerate() {
            self.differences[code * RANKS + rank] = difference;
            if difference != ESCAPED {
                let near = (i32::from(difference) + NEAR) as usize;
                self.places[code * RANKS + near] = of_ranks[rank];
            }
        }
    }
}

/// Bits of a symbol by its frequency, in 1/256.
fn entropy(sums: &[u64; 256]) -> u32 {
    let total: u64 = sums.iter().sum();
    let bits: f64 = sums
        .iter()
        .filter(|&&f| f > 0)
        .map(|&f| f as f64 * (total as f64 / f as f64).log2())
        .sum();
    (256.0 * bits / total as f64) as u32
}

impl Code {
    /// The code with the fewest low bits of those that more do not make cheaper.
    fn best(sums: &[u64; 256]) -> Self {
        let mut best = Self::new(sums, 0);
        for coarse in 1..=MOST_COARSE {
            let code = Self::new(sums, coarse);
            if code.cost >= best.cost {
                break;
            }
            best = code;
        }
        best
    }

    fn new(sums: &[u64; 256], coarse: u32) -> Self {
        let half = (1 << coarse) >> 1;
        let mut near = [0u64; RANKS];
        let mut escaped = 0;
        for (symbol, &f) in (0..).zip(sums) {
            let difference = (symbol - i32::from(UNCHANGED) + half) >> coarse;
            let direct = symbol != i32::from(ESCAPE);
            match near.get_mut((difference + NEAR) as usize) {
                Some(sum) if direct && difference >= -NEAR => *sum += f,
                _ => escaped += f,
            }
        }
        let mut ranks: Vec<(i8, u64)> = (-NEAR as i8..).zip(near).filter(|&(_, f)| f > 0).collect();
        ranks.sort_by_key(|&(d, f)| (std::cmp::Reverse(f), d.unsigned_abs(), d < 0));
        escaped += ranks
            .drain(ranks.len().min(RANKS - 1)..)
            .map(|r| r.1)
            .sum::<u64>();
        let place = ranks.partition_point(|&(_, f)| f >= escaped);
        ranks.insert(place, (ESCAPED, escaped));
        let (cost, class_bits) = cheapest(&ranks, MOST_CLASS_BITS.min(MOST_BITS - coarse));
        let total: u64 = ranks.iter().map(|r| r.1).sum();
        Self {
            coarse,
            ranks,
            class_bits,
            cost: cost + escaped * ESCAPE_BITS + total * u64::from(coarse),
        }
    }

    /// Bits of a weight, in 1/256.
    fn bits(&self, sums: &[u64; 256]) -> u32 {
        (256 * self.cost / sums.iter().sum::<u64>().max(1)) as u32
    }
}

/// What classes cost at least, and the bits of each; fewer bits where that costs the same.
fn cheapest(ranks: &[(i8, u64)], most_bits: u32) -> (u64, Vec<u32>) {
    let end = ranks.len().min(RANKS);
    let mut sums = [0; RANKS + 1];
    for (i, rank) in ranks[..end].iter().enumerate() {
        sums[i + 1] = sums[i] + rank.1;
    }
    // For each rank, the cost from there on with so many classes left, and the bits of the next.
    let mut rest = [u64::MAX; RANKS + 1];
    rest[end] = 0;
    let mut bits_of = [[0u8; RANKS]; CLASSES];
    for choices in &mut bits_of {
        let mut here = [u64::MAX; RANKS + 1];
        here[end] = 0;
        for first in 0..end {
            let unary = sums[end] - sums[first];
            for bits in 0..=most_bits {
                let next = (first + (1 << bits)).min(end);
                if rest[next] < u64::MAX {
                    let cost = rest[next] + unary + (sums[next] - sums[first]) * u64::from(bits);
                    if cost < here[first] {
                        (here[first], choices[first]) = (cost, bits as u8);
                    }
                }
                if next == end {
                    break;
                }
            }
        }
        rest = here;
    }
    let (mut first, mut class_bits) = (0, Vec::new());
    for choices in bits_of.iter().rev() {
        if first < end {
            class_bits.push(u32::from(choices[first]));
            first += 1 << choices[first];
        }
    }
    (rest[0], class_bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::frequencies;
    use proptest::prelude::*;

    /// What each rank of a code is: the place in its class and the class, as they are written.
    fn of_ranks(codes: &RankCodes, code: usize) -> Vec<(u8, i8)> {
        let mut all = Vec::new();
        for class in 0..CLASSES {
            let found = codes.classes[code * CLASSES + class];
            if class > 0 && found == 0 {
                break;
            }
            let (first, bits) = (usize::from(found & 31), found >> 5);
            for place in 0..1usize << bits {
                let difference = codes.differences[code * RANKS + (first + place) % RANKS];
                all.push((place as u8 | (class as u8) << 5, difference));
            }
        }
        all
    }

    fn check(codes: &RankCodes, count: usize) {
        for code in 0..count {
            let ranks = of_ranks(codes, code);
            for near in 0..RANKS {
                let place = codes.places[code * RANKS + near];
                let read = ranks.iter().find(|r| r.0 == place).map(|r| r.1);
                let expected = match place == codes.escapes[code] {
                    true => ESCAPED,
                    false => (near as i32 - NEAR) as i8,
                };
                assert_eq!(read, Some(expected), "code {code}, difference {near}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_tables_make_codes_that_are_read_as_written(
            counts in proptest::collection::vec((proptest::collection::vec(any::<u16>(), 241), 1u32..40), 1..45),
        ) {
            let tables: Vec<Frequencies> = counts
                .iter()
                .map(|(counts, width)| {
                    let mut all = [0; 256];
                    for (i, &count) in counts.iter().enumerate() {
                        let far = (i as u32).abs_diff(120);
                        all[i + 1] = u32::from(count) >> (16 * far / width).min(31);
                    }
                    frequencies(&all, false)
                })
                .collect();
            let starts: Vec<u8> = (0..tables.len()).map(|i| (2 * i) as u8).collect();
            let codes = RankCodes::new(&starts, &tables);
            check(&codes, tables.len().min(CODES));
            for (context, bits) in codes.bits.iter().enumerate() {
                prop_assert!(bits[1] + 1 >= bits[0], "context {}: {:?}", context, bits);
            }
        }
    }

    #[test]
    fn likely_differences_have_short_codes() {
        let mut counts = [0; 256];
        for (distance, count) in [(0, 400u32), (1, 300), (2, 100), (3, 20), (40, 1)] {
            counts[usize::from(UNCHANGED) + distance] = count;
            counts[usize::from(UNCHANGED) - distance] = count;
        }
        let codes = RankCodes::new(&[0], &[frequencies(&counts, true)]);
        let class = |difference: i32| codes.places[(difference + NEAR) as usize] >> 5;
        assert_eq!((class(0), codes.coarse[0]), (0, 0));
        assert!(
            class(1) <= class(2) && class(2) < class(3) && class(-2) == class(2).max(class(-2))
        );
        assert_eq!(codes.places[(10 + NEAR) as usize], codes.escapes[0]);
        let [entropy, bits] = codes.bits[7];
        assert!(bits < entropy + entropy / 10, "{entropy} {bits}");
    }
}
