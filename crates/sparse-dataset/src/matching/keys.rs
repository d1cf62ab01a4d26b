//! Matching rows by equal cells: which base column each derivative column
//! came from, and the base row that shares the most cells with a row.

use std::collections::HashMap;

use super::NEW;
use super::hashes::{HashMatrix, Hashes, RowsByHash};
use crate::error::Result;

/// Cells looked at to find which columns correspond.
const SAMPLE: usize = 2048;
/// Rows looked at among those that share one cell.
const CANDIDATES: usize = 16;

/// Rows of all indexes by key, at about ten bytes a row. A base with more is
/// matched by one index alone.
pub(crate) const INDEX_ROWS: usize = 32 << 20;

/// A derivative column whose values occur in a base column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) derivative: usize,
    pub(crate) base: usize,
    hits: usize,
    /// Base rows per value that was found.
    rows_per_value: f64,
}

/// For each derivative column the base column that holds most of its values.
/// `names` says whether two columns are called the same.
pub(crate) fn column_pairs(
    base: &HashMatrix,
    derivative: &HashMatrix,
    same_name: impl Fn(usize, usize) -> bool,
) -> Vec<Pair> {
    let mut wanted: HashMap<u32, Vec<usize>> = HashMap::new();
    for (column, hashes) in derivative.columns.iter().enumerate() {
        let present = hashes.iter().filter(|&&hash| hash != 0).count();
        let stride = (present / SAMPLE).max(1);
        for &hash in hashes.iter().filter(|&&hash| hash != 0).step_by(stride) {
            let columns = wanted.entry(hash).or_default();
            if columns.last() != Some(&column) {
                columns.push(column);
            }
        }
    }
    let mut best: Vec<Option<(bool, Pair)>> = vec![None; derivative.columns.len()];
    for (base_column, hashes) in base.columns.iter().enumerate() {
        let mut found: HashMap<u32, usize> = HashMap::new();
        for hash in hashes.iter().filter(|&&hash| hash != 0) {
            if wanted.contains_key(hash) {
                *found.entry(*hash).or_default() += 1;
            }
        }
        let mut hits = vec![(0usize, 0usize); derivative.columns.len()];
        for (hash, rows) in &found {
            for &column in &wanted[hash] {
                hits[column].0 += 1;
                hits[column].1 += rows;
            }
        }
        for (column, &(hits, rows)) in hits.iter().enumerate() {
            if hits == 0 {
                continue;
            }
            let named = same_name(column, base_column);
            let pair = Pair {
                derivative: column,
                base: base_column,
                hits,
                rows_per_value: rows as f64 / hits as f64,
            };
            // A column of the same name is believed unless another clearly fits better.
            let weight = |named: bool, hits: usize| if named { hits * 4 } else { hits };
            if best[column].is_none_or(|(other_named, other)| {
                weight(named, hits) > weight(other_named, other.hits)
            }) {
                best[column] = Some((named, pair));
            }
        }
    }
    best.into_iter().flatten().map(|(_, pair)| pair).collect()
}

fn combined(matrix: &HashMatrix, columns: &[usize], row: usize) -> u32 {
    let mut state = 0x9E37_79B9u32;
    let mut any = false;
    for &column in columns {
        let hash = matrix.columns[column][row];
        any |= hash != 0;
        state = (state.rotate_left(9) ^ hash).wrapping_mul(0x85EB_CA6B);
        state ^= state >> 15;
    }
    if any { state.max(1) } else { 0 }
}

/// Matches rows given the pairs of columns.
pub(crate) struct Matcher {
    pairs: Vec<Pair>,
    /// The base columns of the pairs.
    columns: Vec<usize>,
    /// Rows by all their cells; nothing where a key must do.
    whole: Option<(Vec<u32>, RowsByHash)>,
    /// The key that the user named.
    key: Option<(Pair, RowsByHash)>,
    keys: Vec<(Pair, RowsByHash)>,
}

impl Matcher {
    /// `key` is the column that the user named, in the derivative and in the base;
    /// `most` what [`INDEX_ROWS`] is.
    pub(crate) fn new(
        base: &HashMatrix,
        mut pairs: Vec<Pair>,
        key: Option<(usize, usize)>,
        most: usize,
    ) -> Self {
        let key = key.filter(|key| key.1 < base.columns.len()).map(|key| {
            let pair = Pair {
                derivative: key.0,
                base: key.1,
                hits: base.rows,
                rows_per_value: 1.0,
            };
            // Rows are equal only if their keys are.
            pairs.retain(|pair| pair.derivative != key.0);
            pairs.push(pair);
            (pair, RowsByHash::of(&base.columns[pair.base]))
        });
        let columns: Vec<usize> = pairs.iter().map(|pair| pair.base).collect();
        let mut selective: Vec<Pair> = pairs
            .iter()
            .filter(|pair| pair.rows_per_value <= 8.0)
            .copied()
            .collect();
        selective.sort_by(|a, b| {
            let rounded = |pair: &Pair| {
                (
                    pair.rows_per_value.log2().round() as i64,
                    std::cmp::Reverse(pair.hits),
                )
            };
            rounded(a).cmp(&rounded(b))
        });
        let by_key_alone = base.rows > most && (key.is_some() || !selective.is_empty());
        let whole = (!by_key_alone).then(|| {
            let hashes = (0..base.rows).map(|row| combined(base, &columns, row));
            let hashes: Vec<u32> = hashes.collect();
            let rows = RowsByHash::of(&hashes);
            (hashes, rows)
        });
        // Tables larger than memory are matched by fewer keys.
        selective.truncate(match by_key_alone {
            true => usize::from(key.is_none()),
            false => (most / base.rows.max(1)).min(3),
        });
        let keys = selective
            .into_iter()
            .map(|pair| (pair, RowsByHash::of(&base.columns[pair.base])))
            .collect();
        Self {
            pairs,
            columns,
            whole,
            key,
            keys,
        }
    }

    /// The hash of all cells of a base row.
    fn whole_hash(&self, base: &HashMatrix, row: u32) -> u32 {
        match &self.whole {
            Some((hashes, _)) => hashes[row as usize],
            None => combined(base, &self.columns, row as usize),
        }
    }

    /// A base row with the hash of a row whose key it has too.
    fn equal_by_key(
        &self,
        base: &HashMatrix,
        derivative: &HashMatrix,
        row: usize,
        wanted: u32,
        is_used: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let (pair, rows) = self.key.as_ref().or(self.keys.first())?;
        let hash = *derivative.columns.get(pair.derivative)?.get(row)?;
        let equal = rows
            .rows(&base.columns[pair.base], hash)
            .filter(|&row| self.whole_hash(base, row) == wanted)
            .take(CANDIDATES);
        let equal: Vec<u32> = equal.collect();
        let unused = equal.iter().find(|&&row| !is_used(row));
        unused.or(equal.first()).copied()
    }

    /// The base row of each derivative row, or [`NEW`].
    pub(crate) fn match_rows(
        &mut self,
        base: &HashMatrix,
        derivative: &Hashes,
    ) -> Result<Vec<u32>> {
        let mut used = vec![0u64; base.rows.div_ceil(64)];
        let mut references = Vec::new();
        for window in derivative.windows() {
            references.reserve_exact(window.len());
            let hashes = derivative.window(window)?;
            self.match_window(base, &hashes, &mut used, &mut references);
        }
        Ok(references)
    }

    fn match_window(
        &mut self,
        base: &HashMatrix,
        derivative: &HashMatrix,
        used: &mut [u64],
        references: &mut Vec<u32>,
    ) {
        let columns: Vec<usize> = self.pairs.iter().map(|pair| pair.derivative).collect();
        let last = references.iter().rev().find(|&&row| row != NEW);
        let mut previous = last.copied().unwrap_or(NEW);
        for row in 0..derivative.rows {
            let next = previous.wrapping_add(1);
            let has_next = (next as usize) < base.rows;
            let wanted = combined(derivative, &columns, row);
            let is_used = |row: u32| used[row as usize / 64] >> (row % 64) & 1 == 1;
            let found = if wanted == 0 {
                // A row without values: a header or a blank line.
                Some(NEW)
            } else if has_next && self.whole_hash(base, next) == wanted && !is_used(next) {
                Some(next)
            } else if let Some((hashes, rows)) = &mut self.whole {
                rows.take(hashes, wanted)
            } else {
                self.equal_by_key(base, derivative, row, wanted, is_used)
            };
            let reference = found.unwrap_or_else(|| {
                let next = has_next.then_some(next);
                self.same_key(base, derivative, row, next, is_used)
                    .unwrap_or_else(|| self.best_candidate(base, derivative, row, next, is_used))
            });
            if reference != NEW {
                used[reference as usize / 64] |= 1 << (reference % 64);
                previous = reference;
            }
            references.push(reference);
        }
    }

    /// The base row with the key of a row that is most like it, where a key was
    /// named.
    fn same_key(
        &self,
        base: &HashMatrix,
        derivative: &HashMatrix,
        row: usize,
        next: Option<u32>,
        is_used: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let (pair, rows) = self.key.as_ref()?;
        let hash = *derivative.columns.get(pair.derivative)?.get(row)?;
        let hashes = &base.columns[pair.base];
        let next = next.filter(|&next| hash != 0 && hashes[next as usize] == hash);
        let score = |&candidate: &u32| {
            let cells = self.shared(base, derivative, row, candidate);
            (cells, Some(candidate) == next, !is_used(candidate))
        };
        let rows = rows.rows(hashes, hash).take(CANDIDATES);
        // Of several that are as good the first.
        let candidates: Vec<u32> = rows.chain(next).collect();
        candidates.into_iter().rev().max_by_key(score)
    }

    /// How much two rows have in common: 16 for a cell that says something, 1
    /// for another.
    fn shared(&self, base: &HashMatrix, derivative: &HashMatrix, row: usize, other: u32) -> usize {
        let equal = self.pairs.iter().filter(|pair| {
            let hash = derivative.columns[pair.derivative][row];
            hash != 0 && base.columns[pair.base][other as usize] == hash
        });
        equal
            .map(|pair| if pair.rows_per_value <= 8.0 { 16 } else { 1 })
            .sum()
    }

    fn best_candidate(
        &self,
        base: &HashMatrix,
        derivative: &HashMatrix,
        row: usize,
        next: Option<u32>,
        is_used: impl Fn(u32) -> bool,
    ) -> u32 {
        let mut best = (0, NEW);
        let mut consider = |candidate: u32, bonus: usize| {
            let cells = self.shared(base, derivative, row, candidate);
            let score = cells * 4 + bonus + usize::from(!is_used(candidate));
            if cells >= 16 && score > best.0 {
                best = (score, candidate);
            }
        };
        if let Some(next) = next {
            consider(next, 2);
        }
        for (pair, rows) in &self.keys {
            let hash = derivative.columns[pair.derivative][row];
            for candidate in rows.rows(&base.columns[pair.base], hash).take(CANDIDATES) {
                consider(candidate, 0);
            }
        }
        best.1
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A key, a label and a text for each row; of a derivative in another order, with texts edited
    /// and rows added.
    fn tables() -> (HashMatrix, HashMatrix) {
        let row = |n: u32| [n + 1, n % 3 + 1, n.wrapping_mul(2_654_435_761) | 1];
        let base: Vec<[u32; 3]> = (0..3000).map(row).collect();
        let mut derivative: Vec<[u32; 3]> = (0..3000).map(|n| row(n * 7 % 3000)).collect();
        for n in (0..3000).step_by(50) {
            derivative[n][2] = 7;
        }
        derivative.push([90_000, 2, 90_001]);
        derivative.push(row(5));
        let table = |rows: &[[u32; 3]]| HashMatrix {
            columns: (0..3)
                .map(|column| rows.iter().map(|row| row[column]).collect())
                .collect(),
            rows: rows.len(),
        };
        (table(&base), table(&derivative))
    }

    #[test]
    fn one_index_finds_the_rows_that_several_find() {
        let (base, derivative) = tables();
        let pairs = column_pairs(&base, &derivative, |a, b| a == b);
        assert_eq!(pairs.len(), 3);
        let hashes = derivative.put_away(Path::new("test")).unwrap();
        let find = |key, most| {
            let mut matcher = Matcher::new(&base, pairs.clone(), key, most);
            matcher.match_rows(&base, &hashes).unwrap()
        };
        let expected = find(None, INDEX_ROWS);
        assert_eq!(expected[..3], [0, 7, 14]);
        assert_eq!(expected[3000..], [NEW, 5]);
        for key in [None, Some((0, 0))] {
            assert_eq!(find(key, 100), expected);
        }
    }
}
