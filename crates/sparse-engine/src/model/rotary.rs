//! Cosines and sines of positions, and turning queries and keys by them.

use std::sync::{Arc, RwLock};

use super::attention::Spans;
use crate::config::Rotary;

/// Cosines and sines, made for as many positions as were needed so far.
#[derive(Debug)]
pub(super) struct Rotations {
    rotary: Rotary,
    /// Those that the last run needed: one, or where frequencies depend on the length, one for each
    /// length that has its own.
    tables: RwLock<Vec<Arc<Table>>>,
}

/// For each position, cosines of all pairs and then their sines.
#[derive(Debug)]
pub(super) struct Table {
    values: Vec<f32>,
    pairs: usize,
    positions: usize,
    /// The length whose frequencies these are; see [`Rotary::scale_length`].
    length: usize,
}

impl Rotations {
    pub fn new(rotary: Rotary) -> Rotations {
        Rotations {
            rotary,
            tables: RwLock::default(),
        }
    }

    /// For each text the table that it would have if it were run alone.
    pub fn tables(&self, spans: &Spans) -> Vec<Arc<Table>> {
        // A thread that panicked while holding the lock left whole tables behind.
        let mut known = match self.tables.read() {
            Ok(tables) => tables.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        };
        let mut made = false;
        let tables: Vec<Arc<Table>> = spans
            .iter()
            .map(|span| {
                let needed = span.position + span.len;
                let length = self.rotary.scale_length(needed);
                let place = known.iter().position(|table| table.length == length);
                if let Some(place) = place
                    && known[place].positions >= needed
                {
                    return Arc::clone(&known[place]);
                }
                made = true;
                let table = Arc::new(Table::new(&self.rotary, needed, length));
                match place {
                    Some(place) => known[place] = Arc::clone(&table),
                    None => known.push(Arc::clone(&table)),
                }
                table
            })
            .collect();
        if made && let Ok(mut kept) = self.tables.write() {
            // A text that grows has a new length with every token: the others are not kept.
            known.retain(|one| tables.iter().any(|table| Arc::ptr_eq(one, table)));
            *kept = known;
        }
        tables
    }
}

impl Table {
    fn new(rotary: &Rotary, needed: usize, length: usize) -> Table {
        // A length with frequencies of its own needs no room to grow.
        let positions = if length == needed {
            needed
        } else {
            needed.next_power_of_two().max(256)
        };
        // transformers keeps frequencies and angles in single precision.
        let frequencies: Vec<f32> = rotary
            .frequencies(length)
            .into_iter()
            .map(|turn| turn as f32)
            .collect();
        let factor = rotary.attention_factor();
        let mut values = Vec::with_capacity(positions * rotary.width);
        for position in 0..positions {
            let angles = frequencies
                .iter()
                .map(|turn| f64::from(position as f32 * turn));
            values.extend(angles.clone().map(|angle| (angle.cos() * factor) as f32));
            values.extend(angles.map(|angle| (angle.sin() * factor) as f32));
        }
        Table {
            values,
            pairs: rotary.width / 2,
            positions,
            length,
        }
    }

    /// Turns a head's values at `position`.
    pub fn turn(&self, position: usize, head: &mut [f32]) {
        let row = &self.values[position * 2 * self.pairs..][..2 * self.pairs];
        let (cosines, sines) = row.split_at(self.pairs);
        let (first, second) = head[..2 * self.pairs].split_at_mut(self.pairs);
        let values = first.iter_mut().zip(second);
        for ((a, b), (cosine, sine)) in values.zip(cosines.iter().zip(sines)) {
            (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
        }
    }
}
