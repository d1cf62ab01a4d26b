//! A model whose blocks are loaded one at a time.

use std::ops::Range;
use std::sync::Arc;

use sparse_checkpoint::{Checkpoint, Dtype};
use sparse_engine::{Linear, Model, Order, Plain, Prepared, Rows, Source};

use crate::{Architecture, Error};

/// A checkpoint of full precision whose blocks' layers have no weights before [`Deferred::load`].
pub(crate) struct Deferred<'a> {
    checkpoint: &'a Checkpoint,
    architecture: Architecture,
    plain: Plain<'a>,
}

impl<'a> Deferred<'a> {
    /// Reads from `checkpoint`.
    ///
    /// # Errors
    /// If its `config.json` says that weights are quantized, or names no known architecture.
    pub(crate) fn open(checkpoint: &'a Checkpoint) -> Result<Deferred<'a>, Error> {
        let path = checkpoint.root().join("config.json");
        Ok(Deferred {
            checkpoint,
            architecture: Architecture::of(&checkpoint.config()?, &path)?,
            plain: Plain::open(checkpoint)?,
        })
    }

    /// Gives the layers of a block of a model that was loaded from here their weights.
    ///
    /// # Errors
    /// If they cannot be read, or are not finite.
    pub(crate) fn load(&self, model: &mut Model, block: usize) -> Result<(), Error> {
        let order = if self.architecture.transposed() {
            Order::InputsFirst
        } else {
            Order::OutputsFirst
        };
        let of_block = |name: &str| {
            let place = self.architecture.block(name);
            place.is_some_and(|(number, _)| number == block)
        };
        let layers: Vec<(String, usize, usize)> = model
            .layers()
            .filter(|(name, _)| of_block(name))
            .map(|(name, layer)| (name.to_owned(), layer.outputs(), layer.inputs()))
            .collect();
        for (name, outputs, inputs) in layers {
            let weights = self.plain.linear(&name, outputs, inputs, order)?;
            model.replace(&name, weights);
        }
        Ok(())
    }
}

impl Source for Deferred<'_> {
    fn has(&self, name: &str) -> bool {
        self.plain.has(name)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, sparse_engine::Error> {
        self.plain.vector(name, len)
    }

    fn linear(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        order: Order,
    ) -> Result<Arc<dyn Linear>, sparse_engine::Error> {
        let shape = order.shape(outputs, inputs);
        let tensor = self.checkpoint.tensor(&format!("{name}.weight"));
        let promised = tensor.is_some_and(|tensor| {
            let float = matches!(tensor.dtype(), Dtype::F32 | Dtype::BF16 | Dtype::F16);
            float && tensor.shape() == shape.map(|size| size as u64)
        });
        // A tensor that is not as it should be is refused now, not after the blocks before it.
        if promised && self.architecture.block(name).is_some() {
            Ok(Arc::new(Absent { inputs, outputs }))
        } else {
            self.plain.linear(name, outputs, inputs, order)
        }
    }
}

/// A layer whose weights are still on disk: its shape.
#[derive(Debug)]
struct Absent {
    inputs: usize,
    outputs: usize,
}

impl Linear for Absent {
    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn bytes(&self) -> usize {
        0
    }

    fn tile_rows(&self) -> usize {
        6
    }

    fn tile(&self, _: Rows<'_>, _: &Prepared, _: Range<usize>, _: &mut [f32]) {
        unreachable!("a block is loaded before it runs");
    }

    fn weights(&self, _: usize, _: &mut [f32]) {
        unreachable!("the engine reads single weights of embeddings only");
    }
}
