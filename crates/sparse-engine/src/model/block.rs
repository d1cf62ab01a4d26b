//! One block of the decoder: attention and a feed-forward part.

use std::ops::ControlFlow;
use std::sync::Arc;

use rayon::prelude::*;

use super::attention::{self, Layout, Spans};
use super::rotary::Table;
use super::{Projection, Tap};
use crate::cache::HeadCache;
use crate::config::{Activation, Arrangement, LayerConfig, MAX_HEAD_WIDTH};
use crate::kernels::{Level, vector};
use crate::linear::{Finish, Rows, Target, apply};

/// A norm and its weights.
#[derive(Debug)]
pub(super) enum Norm {
    Layer {
        weight: Vec<f32>,
        bias: Vec<f32>,
        epsilon: f32,
    },
    Rms {
        weight: Vec<f32>,
        epsilon: f32,
    },
}

impl Norm {
    pub fn bytes(&self) -> usize {
        match self {
            Norm::Layer { weight, bias, .. } => (weight.len() + bias.len()) * 4,
            Norm::Rms { weight, .. } => weight.len() * 4,
        }
    }

    /// Normalises rows into `out`.
    pub fn apply(&self, values: &[f32], out: &mut [f32]) {
        let level = Level::detect();
        let one = |(row, out): (&[f32], &mut [f32])| match self {
            Norm::Layer {
                weight,
                bias,
                epsilon,
            } => vector::layer_norm(level, row, weight, bias, *epsilon, out),
            Norm::Rms { weight, epsilon } => vector::rms_norm(level, row, weight, *epsilon, out),
        };
        let width = match self {
            Norm::Layer { weight, .. } | Norm::Rms { weight, .. } => weight.len(),
        };
        if values.len() == width {
            return one((values, out));
        }
        let rows = values
            .par_chunks_exact(width)
            .zip(out.par_chunks_exact_mut(width));
        rows.with_min_len(16).for_each(one);
    }
}

/// What makes queries, keys and values: one projection for all of them or one for each.
#[derive(Debug)]
pub(super) struct Attention {
    /// Each with the column of its first result.
    pub inputs: Vec<(Projection, usize)>,
    pub layout: Layout,
    /// Norms of each head's queries and keys.
    pub qk_norm: Option<(Vec<f32>, Vec<f32>, f32)>,
    pub output: Projection,
}

#[derive(Debug)]
pub(super) struct Mlp {
    /// What the activated half is multiplied by, where there is such a thing: `up` is then plain,
    /// and this is activated.
    pub gate: Option<Projection>,
    pub up: Projection,
    pub down: Projection,
    pub activation: Activation,
}

#[derive(Debug)]
pub(super) struct Block {
    pub attention_norm: Norm,
    pub attention: Attention,
    pub mlp_norm: Norm,
    pub mlp: Mlp,
    pub arrangement: Arrangement,
    pub layer: LayerConfig,
}

/// A part of a block. Between two of them, all that is to be remembered is the residual stream and
/// what [`Workspace::inner`](super::Workspace::inner) names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Queries, keys and values, and what heads attend to.
    Attend,
    /// The layer that adds what heads have attended to to the residual stream.
    AttendOutput,
    /// The feed-forward half as far as its activation.
    Feed,
    /// The layer that adds what was activated to the residual stream.
    FeedOutput,
}

/// Room for what a block makes on the way, used by one block after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    normed: Vec<f32>,
    mlp_normed: Vec<f32>,
    qkv: Vec<f32>,
    /// What [`Part::Attend`] makes and [`Part::AttendOutput`] reads.
    pub attended: Vec<f32>,
    /// What [`Part::Feed`] makes and [`Part::FeedOutput`] reads.
    pub up: Vec<f32>,
}

/// What is the same for all blocks of a run.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub spans: &'a Spans,
    /// Of each text; empty where positions are learned.
    pub rotations: &'a [Arc<Table>],
    /// The rows, ascending, that the caller wants of the block's results; all if none are named.
    /// Those alone remain in the residual stream: the others are needed for their keys and values
    /// only.
    pub wanted: Option<&'a [usize]>,
}

/// Moves the rows `wanted`, ascending, to the front and drops the rest.
pub(super) fn keep_rows(values: &mut Vec<f32>, width: usize, wanted: &[usize]) {
    for (to, &from) in wanted.iter().enumerate() {
        values.copy_within(from * width..(from + 1) * width, to * width);
    }
    values.truncate(wanted.len() * width);
}

impl Block {
    pub fn projections(&self) -> impl Iterator<Item = &Projection> {
        let (attention, mlp) = (&self.attention, &self.mlp);
        let inputs = attention.inputs.iter().map(|(one, _)| one);
        inputs
            .chain([&attention.output])
            .chain(&mlp.gate)
            .chain([&mlp.up, &mlp.down])
    }

    pub fn projections_mut(&mut self) -> impl Iterator<Item = &mut Projection> {
        let (attention, mlp) = (&mut self.attention, &mut self.mlp);
        let inputs = attention.inputs.iter_mut().map(|(one, _)| one);
        inputs
            .chain([&mut attention.output])
            .chain(&mut mlp.gate)
            .chain([&mut mlp.up, &mut mlp.down])
    }

    pub fn vector_bytes(&self) -> usize {
        let biases = self.projections().filter_map(|one| one.bias.as_ref());
        self.attention_norm.bytes()
            + self.mlp_norm.bytes()
            + biases.map(|bias| bias.len() * 4).sum::<usize>()
    }

    /// The parts of the block, in the order in which they run.
    pub fn parts(&self) -> [Part; 4] {
        match self.arrangement {
            Arrangement::PreNorm | Arrangement::PostNorm => [
                Part::Attend,
                Part::AttendOutput,
                Part::Feed,
                Part::FeedOutput,
            ],
            // Both halves read what comes into the block.
            Arrangement::Parallel => [
                Part::Attend,
                Part::Feed,
                Part::AttendOutput,
                Part::FeedOutput,
            ],
        }
    }

    /// The layers of a part, all of which read the same rows.
    pub fn part_layers(&self, part: Part) -> Vec<&str> {
        let (attention, mlp) = (&self.attention, &self.mlp);
        let layers: Vec<&Projection> = match part {
            Part::Attend => attention.inputs.iter().map(|(layer, _)| layer).collect(),
            Part::AttendOutput => vec![&attention.output],
            Part::Feed => mlp.gate.iter().chain([&mlp.up]).collect(),
            Part::FeedOutput => vec![&mlp.down],
        };
        layers.iter().map(|layer| layer.name.as_str()).collect()
    }

    /// Runs rows through the block; see [`Run::wanted`] for those that remain. A tap may end it
    /// early.
    pub fn run(
        &self,
        hidden: &mut Vec<f32>,
        run: Run<'_>,
        heads: &mut [HeadCache],
        scratch: &mut Scratch,
        tap: &mut Option<&mut dyn Tap>,
    ) -> ControlFlow<()> {
        let mut parts = self.parts().into_iter();
        parts.try_for_each(|part| self.run_part(part, hidden, run, heads, scratch, tap))
    }

    /// Runs rows through a part of the block; those before it have left `hidden` and `scratch`.
    pub fn run_part(
        &self,
        part: Part,
        hidden: &mut Vec<f32>,
        run: Run<'_>,
        heads: &mut [HeadCache],
        scratch: &mut Scratch,
        tap: &mut Option<&mut dyn Tap>,
    ) -> ControlFlow<()> {
        match part {
            Part::Attend => self.attend(hidden, run, heads, scratch, tap),
            Part::AttendOutput => {
                let output = &self.attention.output;
                let (width, attended) = (output.linear.outputs(), &mut scratch.attended);
                if let Some(wanted) = run.wanted {
                    keep_rows(attended, output.linear.inputs(), wanted);
                    keep_rows(hidden, width, wanted);
                }
                add_product(output, attended, hidden, tap)?;
                self.norm_after(&self.attention_norm, hidden, &mut scratch.normed);
                ControlFlow::Continue(())
            }
            Part::Feed => self.feed(hidden, run, scratch, tap),
            Part::FeedOutput => {
                add_product(&self.mlp.down, &scratch.up, hidden, tap)?;
                self.norm_after(&self.mlp_norm, hidden, &mut scratch.normed);
                ControlFlow::Continue(())
            }
        }
    }

    /// Attends to what the queries, keys and values of `hidden` say, into `scratch.attended`.
    fn attend(
        &self,
        hidden: &[f32],
        run: Run<'_>,
        heads: &mut [HeadCache],
        scratch: &mut Scratch,
        tap: &mut Option<&mut dyn Tap>,
    ) -> ControlFlow<()> {
        let Attention {
            inputs,
            layout,
            qk_norm,
            output,
        } = &self.attention;
        let Scratch {
            normed,
            qkv,
            attended,
            ..
        } = scratch;
        let rows = self.rows_before(
            &self.attention_norm,
            hidden,
            output.linear.outputs(),
            normed,
        );
        let stride = layout.stride();
        qkv.resize(rows.count() * stride, 0.0);
        for (projection, column) in inputs {
            let target = Target::at(qkv, stride, *column);
            projection.apply(rows, target, Finish::Store, tap)?;
        }
        let rotations = run.rotations;
        let rotations = if self.layer.rotated { rotations } else { &[] };
        attention::prepare(qkv, *layout, run.spans, |text, position, query, head| {
            if let Some((queries, keys, epsilon)) = qk_norm {
                let weight = if query { queries } else { keys };
                let mut normed = [0.0; MAX_HEAD_WIDTH];
                let normed = &mut normed[..head.len()];
                vector::rms_norm(Level::detect(), head, weight, *epsilon, normed);
                head.copy_from_slice(normed);
            }
            if let Some(table) = rotations.get(text) {
                table.turn(position, head);
            }
        });
        attended.resize(rows.count() * layout.query_width(), 0.0);
        attention::attend(qkv, *layout, run, &self.layer, heads, attended);
        ControlFlow::Continue(())
    }

    /// The feed-forward part as far as its activation, into `scratch.up`.
    fn feed(
        &self,
        hidden: &[f32],
        run: Run<'_>,
        scratch: &mut Scratch,
        tap: &mut Option<&mut dyn Tap>,
    ) -> ControlFlow<()> {
        let Mlp {
            gate,
            up,
            down,
            activation,
        } = &self.mlp;
        let inputs = down.linear.outputs();
        // Taps know layers that read the same rows by their place.
        let normed = match self.arrangement {
            Arrangement::Parallel => &mut scratch.mlp_normed,
            Arrangement::PreNorm | Arrangement::PostNorm => &mut scratch.normed,
        };
        let mut rows = self.rows_before(&self.mlp_norm, hidden, inputs, normed);
        if let (Arrangement::Parallel, Some(wanted)) = (self.arrangement, run.wanted) {
            keep_rows(normed, inputs, wanted);
            rows = Rows::new(normed, wanted.len(), inputs);
        }
        let width = up.linear.outputs();
        scratch.up.resize(rows.count() * width, 0.0);
        let mut into_up = |projection: &Projection, finish| {
            let target = Target::new(&mut scratch.up, width);
            projection.apply(rows, target, finish, tap)
        };
        match gate {
            None => into_up(up, Finish::Activate(*activation)),
            Some(gate) => {
                into_up(gate, Finish::Activate(*activation))?;
                into_up(up, Finish::Multiply)
            }
        }
    }

    /// What one half of the block reads of `hidden`: normalised, unless norms come after the sums.
    fn rows_before<'a>(
        &self,
        norm: &Norm,
        hidden: &'a [f32],
        width: usize,
        normed: &'a mut Vec<f32>,
    ) -> Rows<'a> {
        let values = if self.arrangement == Arrangement::PostNorm {
            hidden
        } else {
            normed.resize(hidden.len(), 0.0);
            norm.apply(hidden, normed);
            normed
        };
        Rows::new(values, values.len() / width, width)
    }

    /// Normalises sums where norms come after them.
    fn norm_after(&self, norm: &Norm, hidden: &mut [f32], normed: &mut Vec<f32>) {
        if self.arrangement == Arrangement::PostNorm {
            normed.resize(hidden.len(), 0.0);
            norm.apply(hidden, normed);
            hidden.copy_from_slice(normed);
        }
    }
}

/// Adds to `hidden` what a layer makes of the rows `values`.
fn add_product(
    layer: &Projection,
    values: &[f32],
    hidden: &mut [f32],
    tap: &mut Option<&mut dyn Tap>,
) -> ControlFlow<()> {
    let (inputs, outputs) = (layer.linear.inputs(), layer.linear.outputs());
    let rows = Rows::new(values, hidden.len() / outputs, inputs);
    layer.apply(rows, Target::new(hidden, outputs), Finish::Add, tap)
}

impl Projection {
    /// Multiplies, after showing the rows to the tap, which may end the run instead.
    fn apply(
        &self,
        rows: Rows<'_>,
        target: Target<'_>,
        finish: Finish,
        tap: &mut Option<&mut dyn Tap>,
    ) -> ControlFlow<()> {
        if let Some(tap) = tap {
            tap.input(&self.name, rows)?;
        }
        self.multiply(rows, target, finish);
        ControlFlow::Continue(())
    }

    /// Multiplies.
    pub fn multiply(&self, rows: Rows<'_>, target: Target<'_>, finish: Finish) {
        apply(&*self.linear, self.bias.as_deref(), rows, target, finish);
    }
}
