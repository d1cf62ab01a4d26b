//! The decoder: one block with switches, whatever the architecture.

mod attention;
mod block;
mod forward;
mod head;
mod load;
mod rotary;

use std::ops::ControlFlow;
use std::sync::Arc;

use rayon::ThreadPool;

use crate::Error;
use crate::cache::{Cache, HeadCache, Precision};
use crate::config::ModelConfig;
use crate::linear::{Dense, Linear, Rows};
use crate::source::Source;

pub use block::Part;
use block::{Block, Norm};
use rotary::Rotations;

pub use forward::{Hidden, Workspace};

/// A decoder-only transformer, ready to run.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    embedding: Arc<dyn Linear>,
    /// Learned positions, from the first one that is used.
    positions: Option<Vec<f32>>,
    /// From the embedding's width to the model's, and back.
    project_in: Option<Projection>,
    project_out: Option<Projection>,
    blocks: Vec<Block>,
    final_norm: Option<Norm>,
    head: Projection,
    rotations: Option<Rotations>,
    pool: ThreadPool,
}

/// A linear layer of a model: its name in the checkpoint, weights, and bias.
#[derive(Debug)]
pub(crate) struct Projection {
    name: String,
    linear: Arc<dyn Linear>,
    bias: Option<Vec<f32>>,
}

/// Sees what goes into linear layers, for calibration.
pub trait Tap: Send {
    /// `rows` are about to be multiplied by the weights of `layer`: the name of the layer in the
    /// checkpoint, without `.weight`. A layer sees all rows of a batch at once.
    ///
    /// [`ControlFlow::Break`] ends the run there, where nothing more is to be seen: the rows that it
    /// works on are then half-made.
    fn input(&mut self, layer: &str, rows: Rows<'_>) -> ControlFlow<()>;
}

impl Model {
    /// Loads a model from `source` and runs it on `threads` threads.
    ///
    /// # Errors
    /// If weights are missing, misshapen or not finite.
    pub fn load(
        config: ModelConfig,
        source: &dyn Source,
        threads: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Model, Error> {
        load::load(config, source, threads, progress)
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes that the weights take in memory; tied weights count once.
    pub fn bytes(&self) -> usize {
        let vectors = self.positions.as_ref().map_or(0, |table| table.len() * 4)
            + self.final_norm.as_ref().map_or(0, Norm::bytes)
            + self.blocks.iter().map(Block::vector_bytes).sum::<usize>();
        let mut around = vec![&self.embedding];
        if !Arc::ptr_eq(&self.embedding, &self.head.linear) {
            around.push(&self.head.linear);
        }
        around.extend(
            self.project_in
                .iter()
                .chain(&self.project_out)
                .map(|one| &one.linear),
        );
        let layers = self.layers().map(|(_, linear)| linear);
        vectors
            + around
                .into_iter()
                .chain(layers)
                .map(|one| one.bytes())
                .sum::<usize>()
    }

    /// Every linear layer inside of the blocks, by its name in the checkpoint, in the order in which
    /// they run: those that a [`Tap`] sees. The embedding and the head are not among them, nor what
    /// some OPT have between these and the blocks, which is as precise as the embedding.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &Arc<dyn Linear>)> {
        let layers = self.blocks.iter().flat_map(Block::projections);
        layers.map(|one| (one.name.as_str(), &one.linear))
    }

    /// The layer names of block `block`, in the order in which they run.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block_layers(&self, block: usize) -> impl Iterator<Item = &str> {
        self.blocks[block]
            .projections()
            .map(|one| one.name.as_str())
    }

    /// Replaces the weights of a layer inside of a block; its bias stays. Whether there is such a
    /// layer of that shape.
    pub fn replace(&mut self, name: &str, linear: Arc<dyn Linear>) -> bool {
        let mut projections = self.blocks.iter_mut().flat_map(Block::projections_mut);
        let Some(projection) = projections.find(|one| one.name == name) else {
            return false;
        };
        let old = &projection.linear;
        let fits = (old.inputs(), old.outputs()) == (linear.inputs(), linear.outputs());
        if fits {
            projection.linear = linear;
        }
        fits
    }

    /// Frees the weights of a block that will not run again.
    ///
    /// # Panics
    /// If there is no such block; and so does running it from now on.
    pub fn free_block(&mut self, block: usize) {
        for projection in self.blocks[block].projections_mut() {
            projection.linear = Arc::new(Dense::from_f32(&[], 1));
        }
    }

    /// Runs `work` on the model's threads, or where it is if that is one of as many threads: two
    /// pools would only wait for one another, and they do so at work.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let here = rayon::current_thread_index().map(|_| rayon::current_num_threads());
        if here == Some(self.pool.current_num_threads()) {
            work()
        } else {
            self.pool.install(work)
        }
    }

    /// An empty memory for a text of up to `capacity` tokens. Keys and values are as precise as what
    /// they are made of: f16 where activations are rounded to 8 bits, f32 otherwise.
    pub fn cache(&self, capacity: usize) -> Cache {
        let precision = if self.layers().any(|(_, linear)| linear.rounds()) {
            Precision::Half
        } else {
            Precision::Single
        };
        let config = &self.config;
        let capacity = capacity.min(config.context);
        let layer = || {
            let heads = 0..config.kv_heads;
            heads
                .map(|_| HeadCache::new(config.head_width, capacity, precision))
                .collect()
        };
        Cache {
            layers: config.layers.iter().map(|_| layer()).collect(),
            len: 0,
            capacity,
        }
    }
}
