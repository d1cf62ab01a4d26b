//! From rows to logits, only where they are asked for.

use std::ops::Range;

use rayon::prelude::*;

use super::{Hidden, Model};
use crate::Error;
use crate::kernels::{Level, vector};
use crate::linear::{Finish, Prepared, Rows, TILE_OUTPUTS, Target, apply};

impl Model {
    /// Logits of the rows `range` of `hidden`: a row of [`crate::ModelConfig::vocabulary`] values
    /// for each.
    ///
    /// # Errors
    /// If they are not finite.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn logits(&self, hidden: &Hidden, range: Range<usize>) -> Result<Vec<f32>, Error> {
        let count = range.len();
        let normed = self.finish(hidden, range);
        let width = self.config.embedding_width;
        let mut logits = vec![0.0; count * self.config.vocabulary];
        let target = Target::new(&mut logits, self.config.vocabulary);
        let rows = Rows::new(&normed, count, width);
        let (linear, bias) = (&*self.head.linear, self.head.bias.as_deref());
        self.pool
            .install(|| apply(linear, bias, rows, target, Finish::Store));
        if vector::all_finite(Level::detect(), &logits) {
            Ok(logits)
        } else {
            Err(not_finite())
        }
    }

    /// The negative log-likelihood, in nats, of token `targets[i]` after row `i` of `hidden`,
    /// without holding all logits at once.
    ///
    /// # Errors
    /// If logits are not finite or a target is outside the vocabulary.
    ///
    /// # Panics
    /// If there are not as many targets as rows.
    pub fn losses(&self, hidden: &Hidden, targets: &[u32]) -> Result<Vec<f64>, Error> {
        let rows = 0..hidden.rows().count();
        assert_eq!(rows.len(), targets.len(), "a target for each row");
        let vocabulary = self.config.vocabulary;
        if let Some(&token) = targets.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        let normed = self.finish(hidden, rows);
        let width = self.config.embedding_width;
        let together = self.head.linear.tile_rows();
        let chunks = normed
            .chunks(together * width)
            .zip(targets.chunks(together));
        let mut losses = Vec::with_capacity(targets.len());
        for (normed, targets) in chunks {
            let rows = Rows::new(normed, targets.len(), width);
            losses.extend(self.pool.install(|| self.chunk_losses(rows, targets)));
        }
        if losses.iter().all(|loss: &f64| loss.is_finite()) {
            Ok(losses)
        } else {
            Err(not_finite())
        }
    }

    /// Tiles of the vocabulary are reduced one by one, so that logits stay in the cache.
    fn chunk_losses(&self, rows: Rows<'_>, targets: &[u32]) -> Vec<f64> {
        let (linear, level) = (&*self.head.linear, Level::detect());
        let vocabulary = self.config.vocabulary;
        let mut prepared = Prepared::default();
        linear.prepare(rows, &mut prepared);
        let tiles = vocabulary.div_ceil(TILE_OUTPUTS);
        // Maximum, sum of exponentials, and the target's logit where the tile holds it.
        let parts: Vec<Vec<(f32, f32, Option<f32>)>> = (0..tiles)
            .into_par_iter()
            .map_init(Vec::new, |tile, at| {
                let outputs = at * TILE_OUTPUTS..((at + 1) * TILE_OUTPUTS).min(vocabulary);
                tile.resize(rows.count() * outputs.len(), 0.0);
                linear.tile(rows, &prepared, outputs.clone(), tile);
                let rows = tile.chunks_exact_mut(outputs.len()).zip(targets);
                rows.map(|(logits, &target)| {
                    if let Some(bias) = &self.head.bias {
                        vector::add(level, logits, &bias[outputs.clone()]);
                    }
                    let maximum = vector::maximum(level, logits);
                    let target = target as usize;
                    let own = outputs
                        .contains(&target)
                        .then(|| logits[target - outputs.start]);
                    (maximum, vector::exp_sum(level, logits, maximum), own)
                })
                .collect()
            })
            .collect();
        (0..targets.len())
            .map(|row| {
                let parts = || parts.iter().map(|part| part[row]);
                let maximum = parts().fold(f32::NEG_INFINITY, |most, part| most.max(part.0));
                let sum: f64 = parts()
                    .map(|part| f64::from(part.0 - maximum).exp() * f64::from(part.1))
                    .sum();
                let own: f32 = parts().filter_map(|part| part.2).sum();
                f64::from(maximum) + sum.ln() - f64::from(own)
            })
            .collect()
    }

    /// Rows as the head reads them.
    fn finish(&self, hidden: &Hidden, range: Range<usize>) -> Vec<f32> {
        let count = range.len();
        let values = hidden.values(range);
        self.pool.install(|| {
            let mut finished = match &self.final_norm {
                Some(norm) => {
                    let mut normed = vec![0.0; values.len()];
                    norm.apply(values, &mut normed);
                    normed
                }
                None => values.to_vec(),
            };
            if let Some(project) = &self.project_out {
                let width = self.config.embedding_width;
                let mut projected = vec![0.0; count * width];
                let target = Target::new(&mut projected, width);
                let rows = Rows::new(&finished, count, self.config.width);
                project.multiply(rows, target, Finish::Store);
                finished = projected;
            }
            finished
        })
    }
}

fn not_finite() -> Error {
    Error::Activations {
        layer: "the head".to_owned(),
    }
}
