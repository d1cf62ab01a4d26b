//! Running a calibration text through the model, block by block.
//!
//! Each block sees what the blocks before it make of the text after they were quantized, and where
//! it is asked for each layer what the layers before it make of it, so that later layers make up for
//! the errors of earlier ones. Only one block's statistics are in memory.

use std::ops::ControlFlow;
use std::sync::Arc;

use sparse_checkpoint::Checkpoint;
use sparse_engine::{
    Dense, Hidden, Model, ModelConfig, Plain, Rows, Statistics, Tap, Tokenizer, product,
};

use crate::{Error, Matrix};

/// What to calibrate on.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// The text; `None` for the one that comes with the program.
    pub text: Option<String>,
    /// How many windows are taken from it.
    pub samples: usize,
    /// Where they are taken from depends on this.
    pub seed: u64,
}

/// Windows that are taken if nobody says otherwise.
pub const DEFAULT_SAMPLES: usize = 128;

impl Default for Calibration {
    fn default() -> Calibration {
        Calibration {
            text: None,
            samples: DEFAULT_SAMPLES,
            seed: 0,
        }
    }
}

/// The beginning of the plays of Shakespeare.
const DEFAULT_TEXT: &str = include_str!("../assets/calibration.txt");

/// Tokens of a window, at most.
const WINDOW: usize = 256;
/// Windows that run together: few, as what a block makes of them on the way is the larger part of
/// the memory that calibration takes.
const BATCH: usize = 4;
/// Batches that [`Calibrator::trials`] run on: 4,096 tokens.
const TRIED: usize = 4;
/// Bytes of text that are cut into tokens at a time, but for the rest of a line: a tokenizer takes
/// some hundred bytes for each of them.
const PIECE: usize = 1 << 16;

/// A model and the text's rows between two of its blocks.
pub(crate) struct Calibrator {
    model: Model,
    batches: Vec<Hidden>,
}

impl Calibrator {
    /// Loads the model and embeds the text.
    ///
    /// # Errors
    /// If the model or its tokenizer cannot be loaded, or the text is shorter than a window.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        calibration: &Calibration,
        threads: usize,
    ) -> Result<Calibrator, Error> {
        let config = ModelConfig::read(checkpoint)?;
        let text = calibration.text.as_deref().unwrap_or(DEFAULT_TEXT);
        let tokens = encode(&Tokenizer::open(checkpoint)?, text)?;
        let window = WINDOW.min(config.context);
        if tokens.len() < 2 * window {
            return Err(Error::ShortText {
                tokens: tokens.len(),
                needed: 2 * window,
            });
        }
        let model = Model::load(config, &Plain::open(checkpoint)?, threads, &|_, _| ())?;
        let windows = windows(tokens.len(), window, calibration);
        let batches = windows
            .chunks(BATCH)
            .map(|starts| {
                let texts: Vec<&[u32]> = starts
                    .iter()
                    .map(|&start| &tokens[start..start + window])
                    .collect();
                Ok(model.embed(&texts)?)
            })
            .collect::<Result<_, Error>>()?;
        Ok(Calibrator { model, batches })
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.model.config().layers.len()
    }

    /// What goes into the layers of a block, with full second moments.
    ///
    /// # Errors
    /// If activations are not finite.
    pub(crate) fn observe(&mut self, block: usize) -> Result<Statistics, Error> {
        let mut statistics = Statistics::new(|_| true);
        for batch in &self.batches {
            let mut batch = batch.clone();
            self.model
                .run_block(block, &mut batch, Some(&mut statistics))?;
        }
        Ok(statistics)
    }

    /// The layers of a block in the order in which they run, those that read the same together.
    ///
    /// # Errors
    /// If activations are not finite.
    pub(crate) fn groups(&self, block: usize) -> Result<Vec<Vec<String>>, Error> {
        let mut statistics = Statistics::new(|_| false);
        if let Some(batch) = self.batches.first() {
            let mut batch = batch.clone();
            self.model
                .run_block(block, &mut batch, Some(&mut statistics))?;
        }
        let groups = statistics.groups().into_iter();
        Ok(groups
            .map(|group| group.into_iter().map(str::to_owned).collect())
            .collect())
    }

    /// What goes into a group of layers, with full second moments, as the layers before them are by
    /// now.
    ///
    /// # Errors
    /// If activations are not finite.
    pub(crate) fn observe_group(
        &self,
        block: usize,
        group: &[String],
    ) -> Result<Statistics, Error> {
        let mut until = Until {
            group,
            statistics: Statistics::new(|_| true),
        };
        for batch in &self.batches {
            let mut batch = batch.clone();
            self.model.run_block(block, &mut batch, Some(&mut until))?;
        }
        Ok(until.statistics)
    }

    /// For each of `variants`, which give weights for `layers` of a block, by how much what `through`
    /// makes of its inputs changes: the sum of squares over some of the windows. The layers lead to
    /// `through`, and have their weights `originals` afterwards.
    ///
    /// # Errors
    /// If activations are not finite.
    pub(crate) fn trials(
        &mut self,
        block: usize,
        (layers, originals): (&[&str], &[&Matrix]),
        (through, weights): (&str, &Dense),
        variants: impl Iterator<Item = Vec<Matrix>>,
    ) -> Result<Vec<f64>, Error> {
        let expected = self.outputs(block, through, weights)?;
        let mut changes = Vec::new();
        for variant in variants {
            for (layer, weights) in layers.iter().zip(&variant) {
                self.replace(layer, weights);
            }
            let found = self.outputs(block, through, weights)?;
            let squares = expected.iter().zip(&found).map(|(a, b)| {
                let change = f64::from(a - b);
                change * change
            });
            changes.push(squares.sum());
        }
        for (layer, weights) in layers.iter().zip(originals) {
            self.replace(layer, weights);
        }
        Ok(changes)
    }

    /// What weights make of what goes into a layer, for some of the windows.
    fn outputs(&self, block: usize, layer: &str, weights: &Dense) -> Result<Vec<f32>, Error> {
        let mut through = Through {
            layer,
            weights,
            outputs: Vec::new(),
        };
        for batch in self.batches.iter().take(TRIED) {
            let mut batch = batch.clone();
            self.model
                .run_block(block, &mut batch, Some(&mut through))?;
        }
        Ok(through.outputs)
    }

    /// Puts quantized weights, `[outputs, inputs]`, in the place of a layer's.
    pub(crate) fn replace(&mut self, layer: &str, weights: &Matrix) {
        let dense = Dense::from_f32(weights.data(), weights.cols());
        self.model.replace(layer, Arc::new(dense));
    }

    /// Runs the text through a block, as it is by now, and frees the block's weights.
    ///
    /// # Errors
    /// If activations are not finite.
    pub(crate) fn advance(&mut self, block: usize) -> Result<(), Error> {
        self.pass(block, None)
    }

    /// [`Calibrator::observe`] and [`Calibrator::advance`] at once, for a block that stays as it
    /// is.
    ///
    /// # Errors
    /// If activations are not finite.
    pub(crate) fn observe_passing(&mut self, block: usize) -> Result<Statistics, Error> {
        let mut statistics = Statistics::new(|_| false);
        self.pass(block, Some(&mut statistics))?;
        Ok(statistics)
    }

    fn pass(&mut self, block: usize, mut statistics: Option<&mut Statistics>) -> Result<(), Error> {
        for batch in &mut self.batches {
            let tap = statistics.as_deref_mut().map(|tap| tap as &mut dyn Tap);
            self.model.run_block(block, batch, tap)?;
        }
        self.model.free_block(block);
        Ok(())
    }
}

/// Runs a block as far as a group of layers, and notes what those read.
struct Until<'a> {
    group: &'a [String],
    statistics: Statistics,
}

impl Tap for Until<'_> {
    fn input(&mut self, layer: &str, rows: Rows<'_>) -> ControlFlow<()> {
        if !self.group.iter().any(|name| name == layer) {
            return ControlFlow::Continue(());
        }
        for name in self.group {
            self.statistics.input(name, rows)?;
        }
        ControlFlow::Break(())
    }
}

/// Runs a block as far as a layer, and multiplies what goes into it.
struct Through<'a> {
    layer: &'a str,
    weights: &'a Dense,
    outputs: Vec<f32>,
}

impl Tap for Through<'_> {
    fn input(&mut self, layer: &str, rows: Rows<'_>) -> ControlFlow<()> {
        if layer != self.layer {
            return ControlFlow::Continue(());
        }
        self.outputs.extend(product(self.weights, rows));
        ControlFlow::Break(())
    }
}

/// The tokens of a text, piece by piece: whole lines, so that only tokens across the ends of some
/// lines differ from those of the whole.
fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, Error> {
    let mut tokens = Vec::new();
    let (mut start, mut end) = (0, 0);
    for line in text.split_inclusive('\n') {
        end += line.len();
        if end - start >= PIECE || end == text.len() {
            tokens.extend(tokenizer.encode(&text[start..end])?);
            start = end;
        }
    }
    Ok(tokens)
}

/// Where windows begin: drawn by a generator of their own, the same on every machine.
fn windows(tokens: usize, window: usize, calibration: &Calibration) -> Vec<usize> {
    let mut state = calibration.seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let last = (tokens - window) as u64;
    (0..calibration.samples.max(1))
        .map(|_| (next() % (last + 1)) as usize)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_within_the_text_and_depend_on_the_seed_alone() {
        let of = |seed| {
            let calibration = Calibration {
                seed,
                ..Calibration::default()
            };
            windows(1000, 256, &calibration)
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert!(of(3).iter().all(|&start| start + 256 <= 1000));
        assert_eq!(of(0).len(), DEFAULT_SAMPLES);
    }
}
