//! Running a calibration text through the model, block by block.
//!
//! Each block sees what the blocks before it make of the text after they were quantized, and where
//! it is asked for each layer what the layers before it make of it, so that later layers make up for
//! the errors of earlier ones. Only one block's weights and statistics are in memory, and a few
//! windows' rows; the other windows' rows are on disk.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use sparse_checkpoint::Checkpoint;
use sparse_engine::{
    Dense, Hidden, Linear, Model, ModelConfig, Part, Rows, Statistics, Tap, Tokenizer, Workspace,
    product,
};

use crate::deferred::Deferred;
use crate::rows::RowFile;
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
const BATCH: usize = 2;
/// Batches that [`Calibrator::trials`] run on: 4,096 tokens.
const TRIED: usize = 8;
/// Bytes of text that are cut into tokens at a time, but for the rest of a line: a tokenizer takes
/// some hundred bytes for each of them.
const PIECE: usize = 1 << 10;

/// A model and the text's rows between two of its blocks, or two parts of one.
pub(crate) struct Calibrator<'a> {
    model: Model,
    source: Deferred<'a>,
    /// Tokens of a window, and windows of each batch.
    window: usize,
    batches: Vec<usize>,
    /// The residual stream.
    rows: RowFile,
    /// What heads have attended to, and what was activated: what is left to be added to it.
    attended: RowFile,
    activated: RowFile,
    /// The residual stream where a part begins that is run again and again.
    tried: RowFile,
    /// The rows of the batch that runs, and room for what blocks make of them.
    running: Hidden,
    workspace: Workspace,
}

impl Calibrator<'_> {
    /// Loads the model but for its blocks, and embeds the text; `scratch` is a folder for rows.
    ///
    /// # Errors
    /// If the model or its tokenizer cannot be loaded, or the text is shorter than a window.
    pub(crate) fn new<'a>(
        checkpoint: &'a Checkpoint,
        calibration: &Calibration,
        threads: usize,
        scratch: &Path,
    ) -> Result<Calibrator<'a>, Error> {
        let config = ModelConfig::read(checkpoint)?;
        let text = calibration.text.as_deref().unwrap_or(DEFAULT_TEXT);
        let width = config.width;
        let source = Deferred::open(checkpoint)?;
        let model = Model::load(config, &source, threads, &|_, _| ())?;
        let config = model.config();
        let tokens = {
            let tokenizer = Tokenizer::open(checkpoint)?;
            model.install(|| encode(&tokenizer, text, PIECE))?
        };
        let window = WINDOW.min(config.context);
        if tokens.len() < 2 * window {
            return Err(Error::ShortText {
                tokens: tokens.len(),
                needed: 2 * window,
            });
        }
        let file = |name: &str| RowFile::create(scratch.join(name));
        let mut rows = file(".rows.tmp")?;
        let mut batches = Vec::new();
        for starts in windows(tokens.len(), window, calibration).chunks(BATCH) {
            let texts: Vec<&[u32]> = starts
                .iter()
                .map(|&start| &tokens[start..start + window])
                .collect();
            rows.write(batches.len(), model.embed(&texts)?.data())?;
            batches.push(texts.len());
        }
        Ok(Calibrator {
            model,
            source,
            window,
            batches,
            rows,
            attended: file(".attended.tmp")?,
            activated: file(".activated.tmp")?,
            tried: file(".tried.tmp")?,
            running: Hidden::zeros(width, []),
            workspace: Workspace::default(),
        })
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.model.config().layers.len()
    }

    /// Reads the weights of the block that comes next.
    ///
    /// # Errors
    /// If they cannot be read, or are not finite.
    pub(crate) fn enter(&mut self, block: usize) -> Result<(), Error> {
        self.source.load(&mut self.model, block)
    }

    /// Reads a batch's rows into `running`.
    fn resume(&mut self, batch: usize) -> Result<(), Error> {
        self.make_room(batch);
        self.rows.read(batch, self.running.data_mut())
    }

    /// Gives `running` as many rows as a batch has.
    fn make_room(&mut self, batch: usize) {
        let (windows, width) = (self.batches[batch], self.model.config().width);
        if self.running.rows().count() != windows * self.window {
            self.running = Hidden::zeros(width, (0..windows).map(|_| self.window));
        }
    }

    /// Runs a batch through a block; what becomes of its rows is in `running`.
    fn run(&mut self, block: usize, batch: usize, tap: Option<&mut dyn Tap>) -> Result<(), Error> {
        self.resume(batch)?;
        let Calibrator {
            model,
            running,
            workspace,
            ..
        } = self;
        Ok(model.run_block(block, running, workspace, tap)?)
    }

    /// What goes into the layers of a block, with full second moments.
    ///
    /// # Errors
    /// If activations are not finite.
    pub(crate) fn observe(&mut self, block: usize) -> Result<Statistics, Error> {
        let mut statistics = Statistics::new(|_| true);
        for batch in 0..self.batches.len() {
            self.run(block, batch, Some(&mut statistics))?;
        }
        Ok(statistics)
    }

    /// The layers of each part of a block, in the order in which parts run. Those of a part read the
    /// same.
    pub(crate) fn parts(&self, block: usize) -> Vec<Vec<String>> {
        let parts = self.model.parts(block).into_iter();
        let layers = parts.map(|part| self.model.part_layers(block, part));
        layers
            .map(|layers| layers.into_iter().map(str::to_owned).collect())
            .collect()
    }

    /// What goes into the layers of a block's part `at`, with full second moments where `gram` says
    /// so, as the parts before it are by now. The last of those is run for that, once and for all:
    /// parts are observed one after another.
    ///
    /// # Errors
    /// If activations are not finite, or rows cannot be set aside.
    pub(crate) fn observe_part(
        &mut self,
        block: usize,
        at: usize,
        gram: bool,
    ) -> Result<Statistics, Error> {
        let part = self.model.parts(block)[at];
        let mut first = First {
            layers: self.parts(block).swap_remove(at),
            statistics: Statistics::new(move |_| gram),
        };
        for batch in 0..self.batches.len() {
            self.resume(batch)?;
            let mut before = None;
            if at > 0 {
                before = Some(self.run_part(block, at - 1, batch)?);
            }
            // What the part before has made is there still.
            if before != maker(part) {
                self.put_back(part, batch)?;
            }
            self.step((block, part), Some(&mut first))?;
        }
        Ok(first.statistics)
    }

    /// Runs a batch, which is in `running`, through one part of a block and sets aside what becomes
    /// of it.
    fn run_part(&mut self, block: usize, at: usize, batch: usize) -> Result<Part, Error> {
        let part = self.model.parts(block)[at];
        self.put_back(part, batch)?;
        self.step((block, part), None)?;
        match part {
            Part::Attend => self.attended.write(batch, self.workspace.inner(part)),
            Part::Feed => self.activated.write(batch, self.workspace.inner(part)),
            Part::AttendOutput | Part::FeedOutput => self.rows.write(batch, self.running.data()),
        }?;
        Ok(part)
    }

    /// Runs a part over `running` and what is in the workspace.
    fn step(&mut self, at: (usize, Part), tap: Option<&mut dyn Tap>) -> Result<(), Error> {
        let Calibrator {
            model,
            running,
            workspace,
            ..
        } = self;
        Ok(model.run_part(at, running, workspace, tap)?)
    }

    /// Puts what a part reads besides the rows where it looks for it.
    fn put_back(&mut self, part: Part, batch: usize) -> Result<(), Error> {
        let file = match maker(part) {
            Some(Part::Attend) => &self.attended,
            Some(_) => &self.activated,
            None => return Ok(()),
        };
        let inner = self.workspace.inner(part);
        inner.resize(file.len_of(batch), 0.0);
        file.read(batch, inner)
    }

    /// For each of `variants`, which give weights for `layers` of a block, by how much what `through`
    /// makes of its inputs changes: the sum of squares over some of the windows. The layers lead to
    /// `through`, and have their weights `originals` afterwards.
    ///
    /// # Errors
    /// If activations are not finite, or rows cannot be set aside.
    ///
    /// # Panics
    /// If `through` is no layer that adds to the residual stream.
    pub(crate) fn trials(
        &mut self,
        block: usize,
        (layers, originals): (&[&str], &[&Matrix]),
        (through, weights): (&str, &Dense),
        variants: impl Iterator<Item = Vec<Matrix>>,
    ) -> Result<Vec<f64>, Error> {
        let parts = self.model.parts(block);
        let reads = |part: &&Part| self.model.part_layers(block, **part).contains(&through);
        let making = parts.iter().find(reads).and_then(|&part| maker(part));
        assert!(
            making.is_some(),
            "{through} adds nothing to the residual stream"
        );
        // It is one of the parts, as all four are.
        let first = parts.iter().position(|&part| Some(part) == making);
        let first = first.unwrap_or_default();
        // What comes before the layers is run once.
        for batch in 0..self.trial_batches() {
            self.resume(batch)?;
            for &part in &parts[..first] {
                self.step((block, part), None)?;
            }
            self.tried.write(batch, self.running.data())?;
        }
        let at = (block, parts[first]);
        let mut expected = Vec::new();
        self.outputs(at, weights, |outputs| expected.push(outputs))?;
        let mut changes = Vec::new();
        for variant in variants {
            for (layer, weights) in layers.iter().zip(&variant) {
                self.replace(layer, weights);
            }
            drop(variant);
            let (mut batches, mut sum) = (expected.iter(), 0.0);
            self.outputs(at, weights, |found| {
                for (a, b) in batches.next().into_iter().flatten().zip(&found) {
                    let change = f64::from(a - b);
                    sum += change * change;
                }
            })?;
            changes.push(sum);
        }
        for (layer, weights) in layers.iter().zip(originals) {
            self.replace(layer, weights);
        }
        Ok(changes)
    }

    /// Batches that trials run on.
    fn trial_batches(&self) -> usize {
        self.batches.len().min(TRIED)
    }

    /// Shows what weights make of what a part leaves of the rows in `tried`, batch by batch.
    fn outputs(
        &mut self,
        at: (usize, Part),
        weights: &Dense,
        mut see: impl FnMut(Vec<f32>),
    ) -> Result<(), Error> {
        for batch in 0..self.trial_batches() {
            self.make_room(batch);
            self.tried.read(batch, self.running.data_mut())?;
            self.step(at, None)?;
            let values = self.workspace.inner(at.1);
            let width = weights.inputs();
            let rows = Rows::new(values, values.len() / width, width);
            see(self.model.install(|| product(weights, rows)));
        }
        Ok(())
    }

    /// Puts quantized weights, `[outputs, inputs]`, in the place of a layer's.
    pub(crate) fn replace(&mut self, layer: &str, weights: &Matrix) {
        let dense = Dense::from_f32(weights.data(), weights.cols());
        self.model.replace(layer, Arc::new(dense));
    }

    /// Runs the text through a block, as it is by now, and frees the block's weights.
    ///
    /// # Errors
    /// If activations are not finite, or rows cannot be set aside.
    pub(crate) fn advance(&mut self, block: usize) -> Result<(), Error> {
        self.pass(block, None)
    }

    /// [`Calibrator::advance`] where all parts of the block but the last were observed one by one.
    ///
    /// # Errors
    /// If activations are not finite, or rows cannot be set aside.
    pub(crate) fn advance_last_part(&mut self, block: usize) -> Result<(), Error> {
        let last = self.model.parts(block).len() - 1;
        // Nothing reads what the last block makes.
        if block + 1 < self.blocks() {
            for batch in 0..self.batches.len() {
                self.resume(batch)?;
                self.run_part(block, last, batch)?;
            }
        }
        self.model.free_block(block);
        Ok(())
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
        for batch in 0..self.batches.len() {
            let tap = statistics.as_deref_mut().map(|tap| tap as &mut dyn Tap);
            self.run(block, batch, tap)?;
            self.rows.write(batch, self.running.data())?;
        }
        self.model.free_block(block);
        Ok(())
    }
}

/// The part that makes what another reads besides the rows.
fn maker(part: Part) -> Option<Part> {
    match part {
        Part::Attend | Part::Feed => None,
        Part::AttendOutput => Some(Part::Attend),
        Part::FeedOutput => Some(Part::Feed),
    }
}

/// Notes what the layers of a part read, and ends it before the first of them.
struct First {
    layers: Vec<String>,
    statistics: Statistics,
}

impl Tap for First {
    fn input(&mut self, _: &str, rows: Rows<'_>) -> ControlFlow<()> {
        for layer in &self.layers {
            self.statistics.input(layer, rows)?;
        }
        ControlFlow::Break(())
    }
}

/// The tokens of a text, piece by piece: whole lines, which tokenizers do not reach across.
fn encode(tokenizer: &Tokenizer, text: &str, piece: usize) -> Result<Vec<u32>, Error> {
    let encoded: Result<Vec<_>, _> = pieces(text, piece)
        .into_par_iter()
        .map(|piece| tokenizer.encode(piece))
        .collect();
    Ok(encoded?.concat())
}

/// Pieces of at least `least` bytes, but for the last. White space across the ends of lines stays
/// together, as tokenizers that cut a text into words keep it so; but a single space before a word
/// is the word's.
fn pieces(text: &str, least: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (end, _) in text.match_indices('\n') {
        let end = end + 1;
        let next = text[end..].strip_prefix(' ').unwrap_or(&text[end..]);
        if end - start >= least && next.starts_with(|first: char| !first.is_whitespace()) {
            pieces.push(&text[start..end]);
            start = end;
        }
    }
    pieces.push(&text[start..]);
    pieces
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

    #[test]
    fn tokens_of_pieces_are_those_of_the_whole() {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/base");
        let checkpoint = Checkpoint::open(base.as_ref()).unwrap();
        let tokenizer = Tokenizer::open(&checkpoint).unwrap();
        let text = &DEFAULT_TEXT[..60_000];
        let spaced = text.replace(".\n", ".\n \n\n   ").replace(",\n", ",\n ");
        for text in [text, &spaced, "", "\n", "no end"] {
            let whole = tokenizer.encode(text).unwrap();
            for piece in [1, 500, 1 << 20] {
                assert_eq!(encode(&tokenizer, text, piece).unwrap(), whole, "{piece}");
            }
            assert_eq!(pieces(text, 1).concat(), text);
        }
        assert!(pieces(text, 500).len() > 50);
        assert!(pieces(&spaced, 500).len() > 20);
    }

    #[test]
    fn parts_one_by_one_see_and_leave_what_the_whole_block_does() {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/base");
        let checkpoint = Checkpoint::open(base.as_ref()).unwrap();
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let calibration = Calibration {
            samples: BATCH + 1,
            ..Calibration::default()
        };
        let start = |dir: &Path| Calibrator::new(&checkpoint, &calibration, 2, dir).unwrap();
        let (mut whole, mut parted) = (start(left.path()), start(right.path()));
        for block in 0..whole.blocks() {
            whole.enter(block).unwrap();
            parted.enter(block).unwrap();
            let expected = whole.observe(block).unwrap();
            let mut seen = 0;
            for (at, layers) in parted.parts(block).iter().enumerate() {
                let found = parted.observe_part(block, at, true).unwrap();
                for layer in layers {
                    let (found, expected) = (found.layer(layer), expected.layer(layer));
                    assert_eq!(found.unwrap().gram(), expected.unwrap().gram());
                    seen += 1;
                }
            }
            assert_eq!(seen, expected.layers().count());
            whole.advance(block).unwrap();
            parted.advance_last_part(block).unwrap();
            if block + 1 == whole.blocks() {
                break;
            }
            for batch in 0..2 {
                whole.resume(batch).unwrap();
                parted.resume(batch).unwrap();
                assert_eq!(whole.running.data(), parted.running.data());
            }
        }
    }

    #[test]
    fn one_block_and_one_batch_are_in_memory() {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/base");
        let checkpoint = Checkpoint::open(base.as_ref()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let calibration = Calibration {
            samples: 2 * BATCH + 1,
            ..Calibration::default()
        };
        let mut calibrator = Calibrator::new(&checkpoint, &calibration, 2, dir.path()).unwrap();
        assert_eq!(calibrator.batches.len(), 3);
        let config = calibrator.model.config();
        let batch = BATCH * WINDOW.min(config.context) * config.width;
        let without = calibrator.model.bytes();
        for block in 0..calibrator.blocks() {
            calibrator.enter(block).unwrap();
            assert!(calibrator.model.bytes() > without);
            calibrator.observe_passing(block).unwrap();
            assert_eq!(calibrator.model.bytes(), without);
            assert!(calibrator.running.data().len() <= batch);
        }
        drop(calibrator);
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}
