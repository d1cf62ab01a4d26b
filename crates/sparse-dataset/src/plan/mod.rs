//! How each column of a derivative is predicted from its base row and from
//! columns of the derivative that are known already.

mod counterpart;
mod guess;
mod predictor;
mod sample;
mod search;
mod types;

pub(crate) use counterpart::{Counterpart, last_part};
pub(crate) use predictor::{Fold, Known, Origin, Piece, Predictor};
pub(crate) use sample::{Sample, missed_bytes, sample_rows};
pub(crate) use search::column_plans;
pub(crate) use types::{Cast, casts, is_reordered, type_name};

use crate::table::Kind;
use crate::wire::{Reader, put_bytes, put_number};

/// A function must give so many in a hundred cells.
const WORTHWHILE: u8 = 20;

/// What is expected of one column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnPlan {
    pub(crate) predictor: Predictor,
    /// The kind of most of its cells.
    pub(crate) kind: Kind,
    /// The base column that unpredicted cells may be an edit of.
    pub(crate) basis: Option<u32>,
}

/// The plan for one derivative file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Base columns by name; the plan refers to them by their place here.
    pub(crate) base_columns: Vec<String>,
    pub(crate) columns: Vec<ColumnPlan>,
    /// The order in which the columns of a record are coded.
    pub(crate) order: Vec<u32>,
    /// How many in a hundred cells of each column its predictor gave in a sample:
    /// for reports. Empty where that is not known.
    pub(crate) shares: Vec<u8>,
}

impl Plan {
    /// The place of each column in the coding order.
    pub(crate) fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.columns.len()];
        for (rank, &column) in self.order.iter().enumerate() {
            ranks[column as usize] = rank as u32;
        }
        ranks
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put_number(out, self.base_columns.len() as u64);
        for name in &self.base_columns {
            put_bytes(out, name.as_bytes());
        }
        put_number(out, self.columns.len() as u64);
        for column in &self.columns {
            out.push(column.kind as u8);
            put_number(out, column.basis.map_or(0, |basis| u64::from(basis) + 1));
            column.predictor.write(out);
        }
        let sorted = self
            .order
            .iter()
            .enumerate()
            .all(|(rank, &column)| rank as u32 == column);
        out.push(u8::from(sorted));
        if !sorted {
            for &column in &self.order {
                put_number(out, u64::from(column));
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut plan = Self::default();
        for _ in 0..reader.count()? {
            plan.base_columns.push(reader.string()?);
        }
        let base = plan.base_columns.len() as u32;
        let count = reader.count()?;
        for _ in 0..count {
            let kind = Kind::from_index(usize::from(reader.byte()?));
            let basis = reader.number()?.checked_sub(1).map(|basis| basis as u32);
            let predictor = Predictor::read(reader)?;
            let origins_exist = predictor.origins().iter().all(|origin| match *origin {
                Origin::Base(column) => column < base,
                Origin::Own(column) => (column as usize) < count,
            });
            if basis.is_some_and(|basis| basis >= base) || !origins_exist {
                return None;
            }
            plan.columns.push(ColumnPlan {
                predictor,
                kind,
                basis,
            });
        }
        plan.order = (0..count as u32).collect();
        if reader.byte()? == 0 {
            let mut seen = vec![false; count];
            for place in 0..count {
                let column = reader.number()?;
                if std::mem::replace(seen.get_mut(column as usize)?, true) {
                    return None;
                }
                plan.order[place] = column as u32;
            }
        }
        Some(plan)
    }
}

impl Plan {
    /// Replaces the places of base columns by their numbers in the base rows.
    pub(crate) fn resolve(&mut self, columns: &mut crate::text::Columns) {
        let numbers: Vec<u32> = self
            .base_columns
            .iter()
            .map(|name| columns.named(name))
            .collect();
        self.renumber(|place| numbers[place as usize]);
    }

    /// Gives every base column that is referred to another number.
    fn renumber(&mut self, number: impl Fn(u32) -> u32) {
        let moved = |origin: &mut Origin| {
            if let Origin::Base(column) = origin {
                *column = number(*column);
            }
        };
        for column in &mut self.columns {
            column.basis = column.basis.map(&number);
            match &mut column.predictor {
                Predictor::Previous | Predictor::Next => {}
                Predictor::Concat(pieces) => {
                    for piece in pieces {
                        if let Piece::Cell(origin, _) = piece {
                            moved(origin);
                        }
                    }
                }
                Predictor::After(origin, _)
                | Predictor::Before(origin, _)
                | Predictor::Element(origin)
                | Predictor::Learned(origin) => moved(origin),
            }
        }
    }
}

impl Plan {
    /// A derivative column that speaks like a base column.
    pub(crate) fn column_like(&self, base: u32) -> Option<usize> {
        self.columns.iter().position(|column| {
            column.basis == Some(base) || column.predictor.copied_base() == Some(base)
        })
    }
}
