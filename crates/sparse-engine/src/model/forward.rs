//! From tokens to the rows that the head reads.

use std::ops::{ControlFlow, Range};

use super::attention::Spans;
use super::block::{Part, Run, Scratch};
use super::{Model, Tap};
use crate::Error;
use crate::cache::{Cache, HeadCache, Precision};
use crate::kernels::{Level, vector};
use crate::linear::{Finish, Rows, Target};

/// The residual stream of some texts between two blocks: one row for each token, or after the last
/// block for each that was asked for.
#[derive(Debug, Clone)]
pub struct Hidden {
    values: Vec<f32>,
    width: usize,
    spans: Spans,
}

impl Hidden {
    /// Rows of zeros for texts of these lengths, to be filled with what another has left.
    pub fn zeros(width: usize, lengths: impl IntoIterator<Item = usize>) -> Hidden {
        let spans = Spans::fresh(lengths);
        let rows: usize = spans.iter().map(|span| span.len).sum();
        Hidden {
            values: vec![0.0; rows * width],
            width,
            spans,
        }
    }

    /// All values, row by row.
    pub fn data(&self) -> &[f32] {
        &self.values
    }

    /// All values, row by row.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Its rows, text after text.
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(&self.values, self.values.len() / self.width, self.width)
    }

    /// The values of the rows `range`, one right after the other.
    pub(super) fn values(&self, range: Range<usize>) -> &[f32] {
        &self.values[range.start * self.width..range.end * self.width]
    }
}

impl Model {
    /// Runs texts that have nothing to do with one another, each from its beginning.
    ///
    /// # Errors
    /// If a text has more tokens than the model has positions, a token is unknown, or activations
    /// are not finite.
    pub fn run(&self, texts: &[&[u32]], tap: Option<&mut dyn Tap>) -> Result<Hidden, Error> {
        self.run_blocks(texts, None, tap)
    }

    /// [`Model::run`] where only some rows are of interest: those alone are left, in their order.
    /// `wanted` counts rows through all texts. The last block need not work on the others, which
    /// saves most of it where there are few.
    ///
    /// # Errors
    /// As [`Model::run`].
    ///
    /// # Panics
    /// If `wanted` does not ascend or there are no such rows.
    pub fn run_for(&self, texts: &[&[u32]], wanted: &[usize]) -> Result<Hidden, Error> {
        let count: usize = texts.iter().map(|text| text.len()).sum();
        assert!(wanted.is_sorted_by(|a, b| a < b) && wanted.last().is_none_or(|&row| row < count));
        self.run_blocks(texts, Some(wanted), None)
    }

    fn run_blocks(
        &self,
        texts: &[&[u32]],
        wanted: Option<&[usize]>,
        tap: Option<&mut dyn Tap>,
    ) -> Result<Hidden, Error> {
        let mut hidden = self.embed(texts)?;
        let mut tap = tap;
        let mut workspace = Workspace::default();
        for block in 0..self.blocks.len() {
            let wanted = wanted.filter(|_| block + 1 == self.blocks.len());
            let flow = self.step(block, None, &mut hidden, wanted, &mut workspace, &mut tap)?;
            if flow.is_break() {
                break;
            }
        }
        Ok(hidden)
    }

    /// The rows of the embedding, with positions where those are learned.
    ///
    /// # Errors
    /// If a text has more tokens than the model has positions, or a token is unknown.
    pub fn embed(&self, texts: &[&[u32]]) -> Result<Hidden, Error> {
        let spans = Spans::fresh(texts.iter().map(|text| text.len()));
        self.embed_spans(&texts.concat(), spans)
    }

    /// Runs one block over rows that the block before has left, or [`Model::embed`] has made.
    ///
    /// # Errors
    /// If activations are not finite.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn run_block(
        &self,
        block: usize,
        hidden: &mut Hidden,
        workspace: &mut Workspace,
        tap: Option<&mut dyn Tap>,
    ) -> Result<(), Error> {
        self.step(block, None, hidden, None, workspace, &mut { tap })
            .map(drop)
    }

    /// Runs one part of a block over what the parts before it have left, in `hidden` and in
    /// [`Workspace::inner`]. A tap that ends it where it begins has changed neither.
    ///
    /// # Errors
    /// If activations are not finite.
    ///
    /// # Panics
    /// If there is no such block, or what the parts before it leave is of other rows.
    pub fn run_part(
        &self,
        (block, part): (usize, Part),
        hidden: &mut Hidden,
        workspace: &mut Workspace,
        tap: Option<&mut dyn Tap>,
    ) -> Result<(), Error> {
        self.step(block, Some(part), hidden, None, workspace, &mut { tap })
            .map(drop)
    }

    /// The parts of a block, in the order in which they run.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn parts(&self, block: usize) -> [Part; 4] {
        self.blocks[block].parts()
    }

    /// The layers of a part of a block, by their names in the checkpoint. All of them read the same
    /// rows.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn part_layers(&self, block: usize, part: Part) -> Vec<&str> {
        self.blocks[block].part_layers(part)
    }

    /// Runs the tokens that come after those in `cache`, and adds them to it.
    ///
    /// # Errors
    /// If the cache has no room for them, a token is unknown, or activations are not finite.
    pub fn extend(&self, tokens: &[u32], cache: &mut Cache) -> Result<Hidden, Error> {
        self.extend_for(tokens, None, cache)
    }

    /// [`Model::extend`] where only the last row is of interest, which alone is left: enough to
    /// choose the next token.
    ///
    /// # Errors
    /// As [`Model::extend`].
    ///
    /// # Panics
    /// If there are no tokens.
    pub fn extend_to_last(&self, tokens: &[u32], cache: &mut Cache) -> Result<Hidden, Error> {
        assert!(!tokens.is_empty(), "a last token");
        self.extend_for(tokens, Some(&[tokens.len() - 1]), cache)
    }

    fn extend_for(
        &self,
        tokens: &[u32],
        wanted: Option<&[usize]>,
        cache: &mut Cache,
    ) -> Result<Hidden, Error> {
        let length = cache.len + tokens.len();
        if length > cache.capacity {
            return Err(Error::Context {
                found: length,
                limit: cache.capacity,
            });
        }
        let mut hidden = self.embed_spans(tokens, Spans::continued(tokens.len(), cache.len))?;
        let mut scratch = Scratch::default();
        for (block, heads) in cache.layers.iter_mut().enumerate() {
            let wanted = wanted.filter(|_| block + 1 == self.blocks.len());
            let _ = self.block(
                block,
                None,
                &mut hidden,
                wanted,
                heads,
                &mut scratch,
                &mut None,
            )?;
        }
        cache.len = length;
        Ok(hidden)
    }

    fn embed_spans(&self, tokens: &[u32], spans: Spans) -> Result<Hidden, Error> {
        let config = &self.config;
        if spans.longest() > config.context {
            return Err(Error::Context {
                found: spans.longest(),
                limit: config.context,
            });
        }
        let vocabulary = config.vocabulary;
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        let (width, embedded_width) = (config.width, config.embedding_width);
        let mut values = vec![0.0; tokens.len() * embedded_width];
        for (row, &token) in values.chunks_exact_mut(embedded_width).zip(tokens) {
            self.embedding.weights(token as usize, row);
        }
        if let Some(project) = &self.project_in {
            let rows = Rows::new(&values, tokens.len(), embedded_width);
            let mut projected = vec![0.0; tokens.len() * width];
            let target = Target::new(&mut projected, width);
            self.install(|| project.multiply(rows, target, Finish::Store));
            values = projected;
        }
        if let Some(positions) = &self.positions {
            for span in spans.iter() {
                let rows = &mut values[span.start * width..][..span.len * width];
                let table = &positions[span.position * width..][..span.len * width];
                vector::add(Level::detect(), rows, table);
            }
        }
        Ok(Hidden {
            values,
            width,
            spans,
        })
    }

    /// A block, or one part of it, over texts without a memory: keys and values are needed within
    /// the block alone.
    fn step(
        &self,
        block: usize,
        part: Option<Part>,
        hidden: &mut Hidden,
        wanted: Option<&[usize]>,
        workspace: &mut Workspace,
        tap: &mut Option<&mut dyn Tap>,
    ) -> Result<ControlFlow<()>, Error> {
        let config = &self.config;
        if workspace.spans.as_ref() != Some(&hidden.spans) {
            workspace.heads = hidden
                .spans
                .iter()
                .flat_map(|span| (0..config.kv_heads).map(move |_| span.len))
                .map(|tokens| HeadCache::new(config.head_width, tokens, Precision::Single))
                .collect();
            workspace.spans = Some(hidden.spans.clone());
        }
        let Workspace { heads, scratch, .. } = workspace;
        self.block(block, part, hidden, wanted, heads, scratch, tap)
    }

    #[allow(clippy::too_many_arguments)] // what a block reads, and what it leaves
    fn block(
        &self,
        block: usize,
        part: Option<Part>,
        hidden: &mut Hidden,
        wanted: Option<&[usize]>,
        heads: &mut [HeadCache],
        scratch: &mut Scratch,
        tap: &mut Option<&mut dyn Tap>,
    ) -> Result<ControlFlow<()>, Error> {
        let rotations = self.rotations.as_ref();
        let tables = rotations.map_or_else(Vec::new, |one| one.tables(&hidden.spans));
        let run = Run {
            spans: &hidden.spans,
            rotations: &tables,
            wanted,
        };
        let values = &mut hidden.values;
        let of_block = &self.blocks[block];
        let flow = self.install(|| match part {
            None => of_block.run(values, run, heads, scratch, tap),
            Some(part) => of_block.run_part(part, values, run, heads, scratch, tap),
        });
        if vector::all_finite(Level::detect(), values) {
            Ok(flow)
        } else {
            Err(Error::Activations {
                layer: format!("layer {block} of {}", self.blocks.len()),
            })
        }
    }
}

/// Room for what the blocks of a model make on the way. It is kept from one run to the next, so
/// that many runs take the memory of one.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The texts that `heads` are for.
    spans: Option<Spans>,
    heads: Vec<HeadCache>,
    scratch: Scratch,
}

impl Workspace {
    /// The rows that [`Part::Attend`] leaves for [`Part::AttendOutput`], or [`Part::Feed`] for
    /// [`Part::FeedOutput`], given any of them: to be set aside, and put back before the latter
    /// runs.
    pub fn inner(&mut self, part: Part) -> &mut Vec<f32> {
        match part {
            Part::Attend | Part::AttendOutput => &mut self.scratch.attended,
            Part::Feed | Part::FeedOutput => &mut self.scratch.up,
        }
    }
}
