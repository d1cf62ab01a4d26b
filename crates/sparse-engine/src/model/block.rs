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

    fn apply_in_place(&self, values: &mut [f32], scratch: &mut [f32]) {
        self.apply(values, scratch);
        values.copy_from_slice(scratch);
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

/// Room for what a block makes on the way, used by one block after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    normed: Vec<f32>,
    mlp_normed: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    up: Vec<f32>,
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

    /// Runs rows through the block; see [`Run::wanted`] for those that remain. A tap may end it
    /// early.
    pub fn run(
        &self,
        hidden: &mut Vec<f32>,
        width: usize,
        run: Run<'_>,
        heads: &mut [HeadCache],
        scratch: &mut Scratch,
        tap: &mut Option<&mut dyn Tap>,
    ) -> ControlFlow<()> {
        let mut normed = std::mem::take(&mut scratch.normed);
        normed.resize(hidden.len(), 0.0);
        fn rows(values: &[f32], width: usize) -> Rows<'_> {
            Rows::new(values, values.len() / width, width)
        }
        match self.arrangement {
            Arrangement::PreNorm => {
                self.attention_norm.apply(hidden, &mut normed);
                self.attend(rows(&normed, width), hidden, run, heads, scratch, tap)?;
                normed.truncate(hidden.len());
                self.mlp_norm.apply(hidden, &mut normed);
                self.feed(rows(&normed, width), hidden, scratch, tap)?;
            }
            Arrangement::Parallel => {
                let mut mlp_normed = std::mem::take(&mut scratch.mlp_normed);
                mlp_normed.resize(hidden.len(), 0.0);
                self.attention_norm.apply(hidden, &mut normed);
                self.mlp_norm.apply(hidden, &mut mlp_normed);
                self.attend(rows(&normed, width), hidden, run, heads, scratch, tap)?;
                if let Some(wanted) = run.wanted {
                    keep_rows(&mut mlp_normed, width, wanted);
                }
                self.feed(rows(&mlp_normed, width), hidden, scratch, tap)?;
                scratch.mlp_normed = mlp_normed;
            }
            Arrangement::PostNorm => {
                normed.copy_from_slice(hidden);
                self.attend(rows(&normed, width), hidden, run, heads, scratch, tap)?;
                normed.truncate(hidden.len());
                self.attention_norm.apply_in_place(hidden, &mut normed);
                normed.copy_from_slice(hidden);
                self.feed(rows(&normed, width), hidden, scratch, tap)?;
                self.mlp_norm.apply_in_place(hidden, &mut normed);
            }
        }
        scratch.normed = normed;
        ControlFlow::Continue(())
    }

    /// Adds to `hidden` what attention makes of `rows`, and keeps the rows that are wanted.
    fn attend(
        &self,
        rows: Rows<'_>,
        hidden: &mut Vec<f32>,
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
        let stride = layout.stride();
        scratch.qkv.resize(rows.count() * stride, 0.0);
        for (projection, column) in inputs {
            let target = Target::at(&mut scratch.qkv, stride, *column);
            projection.apply(rows, target, Finish::Store, tap)?;
        }
        let rotations = run.rotations;
        let rotations = if self.layer.rotated { rotations } else { &[] };
        attention::prepare(
            &mut scratch.qkv,
            *layout,
            run.spans,
            |text, position, query, head| {
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
            },
        );
        let width = layout.query_width();
        scratch.attended.resize(rows.count() * width, 0.0);
        attention::attend(
            &scratch.qkv,
            *layout,
            run,
            &self.layer,
            heads,
            &mut scratch.attended,
        );
        let hidden_width = output.linear.outputs();
        if let Some(wanted) = run.wanted {
            keep_rows(&mut scratch.attended, width, wanted);
            keep_rows(hidden, hidden_width, wanted);
        }
        let attended = Rows::new(&scratch.attended, hidden.len() / hidden_width, width);
        let target = Target::new(hidden, hidden_width);
        output.apply(attended, target, Finish::Add, tap)
    }

    /// Adds to `hidden` what the feed-forward part makes of `rows`.
    fn feed(
        &self,
        rows: Rows<'_>,
        hidden: &mut [f32],
        scratch: &mut Scratch,
        tap: &mut Option<&mut dyn Tap>,
    ) -> ControlFlow<()> {
        let Mlp {
            gate,
            up,
            down,
            activation,
        } = &self.mlp;
        let width = up.linear.outputs();
        scratch.up.resize(rows.count() * width, 0.0);
        let mut into_up = |projection: &Projection, finish| {
            let target = Target::new(&mut scratch.up, width);
            projection.apply(rows, target, finish, tap)
        };
        match gate {
            None => into_up(up, Finish::Activate(*activation))?,
            Some(gate) => {
                into_up(gate, Finish::Activate(*activation))?;
                into_up(up, Finish::Multiply)?;
            }
        }
        let rows = Rows::new(&scratch.up, rows.count(), width);
        let target = Target::new(hidden, down.linear.outputs());
        down.apply(rows, target, Finish::Add, tap)
    }
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
