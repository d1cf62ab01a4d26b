//! Cosines and sines of positions, and turning queries and keys by them.

use std::sync::{Arc, RwLock};

use crate::config::Rotary;

/// Cosines and sines, made for as many positions as were needed so far.
#[derive(Debug)]
pub(super) struct Rotations {
    rotary: Rotary,
    table: RwLock<Arc<Table>>,
}

/// For each position, cosines of all pairs and then their sines.
#[derive(Debug, Default)]
pub(super) struct Table {
    values: Vec<f32>,
    pairs: usize,
    positions: usize,
    /// The length that the frequencies are for, where they depend on it.
    length: usize,
}

impl Rotations {
    pub fn new(rotary: Rotary) -> Rotations {
        Rotations {
            rotary,
            table: RwLock::default(),
        }
    }

    /// A table for positions up to `length` of a text that long.
    pub fn table(&self, length: usize) -> Arc<Table> {
        let by_length = self.rotary.by_length();
        let fits =
            |table: &Table| table.positions >= length && (!by_length || table.length == length);
        // A thread that panicked while holding the lock left a whole table behind.
        let current = match self.table.read() {
            Ok(table) => Arc::clone(&table),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        };
        if fits(&current) {
            return current;
        }
        let positions = if by_length {
            length
        } else {
            length.next_power_of_two().max(256)
        };
        let made = Arc::new(Table::new(&self.rotary, positions, length));
        if let Ok(mut table) = self.table.write() {
            *table = Arc::clone(&made);
        }
        made
    }
}

impl Table {
    fn new(rotary: &Rotary, positions: usize, length: usize) -> Table {
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
