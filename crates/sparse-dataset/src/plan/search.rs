//! Finding the function that gives most cells of a column, on a sample.

use std::collections::HashSet;

use super::guess::guesses;
use super::predictor::number;
use super::sample::Sample;
use super::{ColumnPlan, Fold, Known, Origin, Piece, Plan, Predictor, WORTHWHILE};
use crate::table::{Kind, hash_bytes};

/// Rows from which functions are guessed.
const GUESSES: usize = 6;
/// A copy of a base column this good is not looked behind.
const GOOD_COPY: f64 = 0.5;

/// The share of a column's cells that a predictor gives.
fn rate(predictor: &Predictor, column: u32, kind: Kind, samples: &[Sample]) -> f64 {
    let mut known = Known::default();
    let (mut hits, mut cells) = (0usize, 0usize);
    let elements = if matches!(predictor, Predictor::Element(_)) {
        3
    } else {
        1
    };
    for sample in samples {
        let Some((own_kind, bytes)) = sample.own.get(column as usize) else {
            continue;
        };
        cells += 1;
        let hit = (0..elements).any(|element| {
            predictor
                .predict(kind, &known, sample.base.as_ref(), &sample.own, element)
                .is_some_and(|(kind, expected)| kind == own_kind && *expected == *bytes)
        });
        hits += usize::from(hit);
        known.learn(
            predictor,
            sample.base.as_ref(),
            &sample.own,
            own_kind,
            bytes,
        );
    }
    hits as f64 / cells.max(1) as f64
}

/// The share of a column's cells that count on from the sample before.
fn counted(column: u32, samples: &[Sample]) -> f64 {
    let numbers = samples.iter().filter_map(|sample| {
        let (_, bytes) = sample.own.get(column as usize)?;
        Some((i64::from(sample.row), number(bytes)?))
    });
    let numbers: Vec<(i64, i64)> = numbers.collect();
    let steps =
        |pair: &&[(i64, i64)]| pair[1].1.checked_sub(pair[0].1) == Some(pair[1].0 - pair[0].0);
    let hits = numbers.windows(2).filter(steps).count();
    hits as f64 / samples.len().max(1) as f64
}

/// What a column may be made of.
struct Sources<'a> {
    base: &'a [u32],
    own: Vec<u32>,
    repeating: &'a HashSet<Origin>,
}

impl Sources<'_> {
    fn cells<'s>(&self, sample: &'s Sample) -> Vec<(Origin, Kind, &'s [u8])> {
        let own = self
            .own
            .iter()
            .map(|&column| (Origin::Own(column), sample.own.get(column as usize)));
        let base = self.base.iter().map(|&column| {
            (
                Origin::Base(column),
                sample
                    .base
                    .as_ref()
                    .and_then(|base| base.get(column as usize)),
            )
        });
        // Own cells last: where both fit they win, since they carry the edits.
        base.chain(own)
            .filter_map(|(origin, cell)| cell.map(|(kind, bytes)| (origin, kind, bytes)))
            .collect()
    }
}

/// The columns whose values repeat, so that one may be mapped to another's. Found once: tables may
/// have hundreds of columns.
fn repeating(samples: &[Sample], own: u32, base: u32) -> HashSet<Origin> {
    let repeats = |origin: &Origin| {
        let cells = samples.iter().filter_map(|sample| match *origin {
            Origin::Own(column) => sample.own.get(column as usize),
            Origin::Base(column) => sample.base.as_ref()?.get(column as usize),
        });
        let seen: HashSet<u64> = cells.map(|(_, bytes)| hash_bytes(bytes)).collect();
        seen.len() * 2 < samples.len()
    };
    let origins = (0..own).map(Origin::Own);
    let origins = origins.chain((0..base).map(Origin::Base));
    origins.filter(repeats).collect()
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The best predictor of a column, with the share of cells it gives.
fn best(column: u32, kind: Kind, samples: &[Sample], sources: &Sources<'_>) -> (Predictor, f64) {
    let mut candidates = Vec::new();
    let with_cell: Vec<&Sample> = samples
        .iter()
        .filter(|sample| sample.own.get(column as usize).is_some())
        .collect();
    for sample in with_cell.iter().step_by((with_cell.len() / GUESSES).max(1)) {
        if let Some((_, target)) = sample.own.get(column as usize) {
            guesses(target, &sources.cells(sample), &mut candidates);
        }
    }
    // Mappings only from columns whose values repeat.
    let origins = sources.own.iter().map(|&column| Origin::Own(column));
    let origins = origins.chain(sources.base.iter().map(|&column| Origin::Base(column)));
    let repeating = origins.filter(|origin| sources.repeating.contains(origin));
    candidates.extend(repeating.map(Predictor::Learned));
    let mut best = (
        Predictor::Previous,
        rate(&Predictor::Previous, column, kind, samples),
    );
    let counted = counted(column, samples);
    if counted > best.1 {
        best = (Predictor::Next, counted);
    }
    for candidate in candidates {
        let rate = rate(&candidate, column, kind, samples);
        if rate > best.1 + 1e-9 {
            best = (candidate, rate);
        }
    }
    best
}

fn usual_kind(column: u32, samples: &[Sample]) -> Kind {
    let mut counts = [0usize; 4];
    for sample in samples {
        if let Some((kind, _)) = sample.own.get(column as usize) {
            counts[kind as usize] += 1 + usize::from(kind != Kind::Null) * 3;
        }
    }
    Kind::from_index((0..4).max_by_key(|&kind| counts[kind]).unwrap_or(0))
}

/// The base column most like an unpredicted column: of the same name, or the
/// one that shares the longest beginnings.
fn basis(column: u32, name: &str, samples: &[Sample], base_names: &[String]) -> Option<u32> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let mut best = (0usize, None);
    for (base_column, base_name) in base_names.iter().enumerate() {
        let mut score = 0;
        for sample in samples {
            if let (Some((_, bytes)), Some((_, other))) = (
                sample.own.get(column as usize),
                sample.base.as_ref().and_then(|b| b.get(base_column)),
            ) {
                score += common_prefix(bytes, other);
            }
        }
        score = score * 2 + usize::from(last(name) == last(base_name)) * samples.len() * 2;
        if score > best.0 && score >= samples.len() * 2 {
            best = (score, Some(base_column as u32));
        }
    }
    best.1
}

/// The plan of every column, and the order to code them in. Base columns are
/// numbered as in `base_names`.
pub(crate) fn column_plans(samples: &[Sample], names: &[String], base_names: &[String]) -> Plan {
    let count = names.len() as u32;
    let base: Vec<u32> = (0..base_names.len() as u32).collect();
    let kinds: Vec<Kind> = (0..count)
        .map(|column| usual_kind(column, samples))
        .collect();
    let repeating = repeating(samples, count, base_names.len() as u32);
    let mut chosen: Vec<Option<(Predictor, f64)>> = vec![None; names.len()];
    let mut order = Vec::new();
    let mut later = Vec::new();
    for column in 0..count {
        let found = best(
            column,
            kinds[column as usize],
            samples,
            &Sources {
                base: &base,
                own: Vec::new(),
                repeating: &repeating,
            },
        );
        let is_copy = matches!(&found.0, Predictor::Concat(pieces) if matches!(pieces.as_slice(), [Piece::Cell(_, Fold::As)]))
            || matches!(found.0, Predictor::Element(_));
        if is_copy && found.1 >= GOOD_COPY {
            order.push(column);
        } else {
            later.push(column);
        }
        chosen[column as usize] = Some(found);
    }
    // The others may be functions of each other: short ones come first, since
    // a concatenation is longer than its parts.
    let length = |column: u32| -> usize {
        samples
            .iter()
            .filter_map(|s| s.own.get(column as usize))
            .map(|(_, b)| b.len())
            .sum()
    };
    later.sort_by_key(|&column| length(column));
    let mut waiting = later.clone();
    while let Some(column) = waiting.first().copied() {
        waiting.remove(0);
        // A part of a longer column may also be told by that column.
        let own: Vec<u32> = order.clone();
        let found = best(
            column,
            kinds[column as usize],
            samples,
            &Sources {
                base: &base,
                own,
                repeating: &repeating,
            },
        );
        if let Some(current) = &mut chosen[column as usize]
            && found.1 >= current.1
        {
            *current = found;
        }
        order.push(column);
    }
    let columns = chosen
        .into_iter()
        .enumerate()
        .map(|(column, found)| {
            let (mut predictor, rate) = found.unwrap_or((Predictor::Previous, 0.0));
            let basis = basis(column as u32, &names[column], samples, base_names);
            if rate < f64::from(WORTHWHILE) / 100.0 && !matches!(predictor, Predictor::Learned(_)) {
                predictor = basis.map_or(Predictor::Previous, |b| {
                    Predictor::Concat(vec![Piece::Cell(Origin::Base(b), Fold::As)])
                });
            }
            ColumnPlan {
                predictor,
                kind: kinds[column],
                basis,
            }
        })
        .collect();
    let mut plan = Plan {
        base_columns: base_names.to_vec(),
        columns,
        order,
        shares: Vec::new(),
    };
    plan.shares = shares(&plan, samples);
    keep_used(&mut plan);
    plan
}

/// How many in a hundred cells of each column are as predicted.
fn shares(plan: &Plan, samples: &[Sample]) -> Vec<u8> {
    let columns = (0..).zip(&plan.columns);
    let share = |(column, plan): (u32, &ColumnPlan)| match plan.predictor {
        Predictor::Next => counted(column, samples),
        ref predictor => rate(predictor, column, plan.kind, samples),
    };
    columns
        .map(|column| (100.0 * share(column)) as u8)
        .collect()
}

/// Leaves out the base columns that nothing refers to.
fn keep_used(plan: &mut Plan) {
    let mut used: Vec<u32> = plan
        .columns
        .iter()
        .flat_map(|column| {
            column
                .predictor
                .origins()
                .into_iter()
                .chain(column.basis.map(Origin::Base))
        })
        .filter_map(|origin| {
            if let Origin::Base(column) = origin {
                Some(column)
            } else {
                None
            }
        })
        .collect();
    used.sort_unstable();
    used.dedup();
    plan.renumber(|column| used.binary_search(&column).unwrap_or(0) as u32);
    plan.base_columns = used
        .iter()
        .map(|&column| plan.base_columns[column as usize].clone())
        .collect();
}
