//! Coding one chunk.

use sparse_checkpoint::TensorRef;
use sparse_codec::{ChunkMode, Encoder, encode_full};

use super::jobs::{Input, Job};
use crate::Error;
use crate::digest::TensorDigest;
use crate::index;
use crate::plan::{DeltaPlan, Kind, Plan, TensorPlan};
use crate::raw;
use crate::words::{Words, each_width, layout};

/// A coded chunk.
pub(super) struct Done {
    pub(super) tensor: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) mode: &'static str,
    /// Whether it is in rank codes.
    pub(super) ranked: bool,
    pub(super) weights: u64,
    pub(super) changed: u64,
    /// Bytes of the original.
    pub(super) size: u64,
    pub(super) end: Option<(TensorDigest, Option<TensorDigest>)>,
}

/// One encoder for each fit, per thread.
pub(crate) struct Encoders<'a> {
    plan: &'a Plan<'a>,
    encoders: Vec<Option<Encoder<'a>>>,
}

impl<'a> Encoders<'a> {
    pub(crate) fn new(plan: &'a Plan<'a>) -> Self {
        Self {
            plan,
            encoders: plan.fits.iter().map(|_| None).collect(),
        }
    }

    /// Codes weights of a tensor that has a base, given what is predicted for them.
    pub(crate) fn delta(
        &mut self,
        delta: &DeltaPlan<'_>,
        start: u64,
        predicted: &Words,
        fine: &Words,
        out: &mut Vec<u8>,
    ) -> ChunkMode {
        let plan = self.plan;
        let encoder = self.encoders[delta.fit]
            .get_or_insert_with(|| Encoder::new(delta.layout, &plan.fits[delta.fit]));
        let start = start as usize;
        match (predicted, fine) {
            (Words::W8(b), Words::W8(f)) => encoder.encode(&delta.scales, start, b, f, out),
            (Words::W16(b), Words::W16(f)) => encoder.encode(&delta.scales, start, b, f, out),
            (Words::W32(b), Words::W32(f)) => encoder.encode(&delta.scales, start, b, f, out),
            // The base has been cast to the fine-tune's dtype.
            _ => ChunkMode::Plain,
        }
    }

    pub(super) fn encode(&mut self, plan: &TensorPlan<'_>, job: Job) -> Result<Done, Error> {
        let mut bytes = Vec::new();
        let mut done = Done {
            tensor: job.tensor,
            bytes: Vec::new(),
            mode: "raw",
            ranked: false,
            weights: 0,
            changed: 0,
            size: 0,
            end: None,
        };
        match (job.input, &plan.kind) {
            (Input::End(digest, base), kind) => {
                if let Kind::Alias(_) = kind {
                    done.mode = "alias";
                    done.weights = plan.fine.info().elements();
                    done.size = plan.fine.info().bytes();
                }
                done.end = Some((digest, base));
            }
            (Input::Weights(Some(base), fine), Kind::Delta(delta)) => {
                done.changed = count_changed(&base, &fine);
                let predicted = delta.predict(job.start, base);
                let mode = self.delta(delta, job.start, &predicted, &fine, &mut bytes);
                done.ranked = mode == ChunkMode::Ranked;
                done.mode = match mode {
                    // Equal to the prediction, or nearly so: not to the base.
                    ChunkMode::Copy | ChunkMode::Delta | ChunkMode::Sparse | ChunkMode::Ranked
                        if delta.low_rank.is_some() =>
                    {
                        "lowrank"
                    }
                    mode => mode_name(mode),
                };
                done.weights = fine.len() as u64;
                done.size = fine.bytes().len() as u64;
            }
            (Input::Weights(_, fine), kind) => {
                let width = index::width(plan.fine.info().shape());
                let segment = match kind {
                    Kind::Delta(delta) => delta.scales.segment(),
                    _ => sparse_codec::Scales::segment_for(width),
                };
                done.mode = mode_name(full(&plan.fine, segment, &fine, &mut bytes));
                done.weights = fine.len() as u64;
                done.changed = done.weights;
                done.size = fine.bytes().len() as u64;
            }
            (Input::Bytes(base, fine), _) => {
                let bits = u64::from(plan.fine.info().dtype().bits());
                let element = (bits / 8).max(1) as usize;
                bytes = raw::encode(base.as_deref(), &fine, element)
                    .map_err(Error::io("compress", plan.fine.shard().full_path()))?;
                done.weights = fine.len() as u64 * 8 / bits;
                done.changed = match &base {
                    Some(base) => base
                        .chunks(element)
                        .zip(fine.chunks(element))
                        .filter(|(b, f)| b != f)
                        .count() as u64,
                    None => done.weights,
                };
                done.size = fine.len() as u64;
                if base.as_deref() == Some(&fine) {
                    done.mode = "copy";
                }
            }
        }
        done.bytes = bytes;
        Ok(done)
    }
}

/// Codes weights without a base.
pub(crate) fn full(
    tensor: &TensorRef<'_>,
    segment: usize,
    fine: &Words,
    out: &mut Vec<u8>,
) -> ChunkMode {
    match layout(tensor.info().dtype()) {
        Some(layout) => each_width!(fine, fine => encode_full(layout, segment, fine, out)),
        None => ChunkMode::Plain,
    }
}

/// What a chunk's mode is called in reports.
pub(crate) fn mode_name(mode: ChunkMode) -> &'static str {
    match mode {
        ChunkMode::Copy => "copy",
        ChunkMode::Const => "const",
        ChunkMode::Delta | ChunkMode::Ranked => "delta",
        ChunkMode::Sparse => "sparse",
        ChunkMode::Full => "full",
        ChunkMode::Plain => "raw",
    }
}

/// Weights whose words differ.
pub(crate) fn count_changed(base: &Words, fine: &Words) -> u64 {
    match (base, fine) {
        (Words::W8(b), Words::W8(f)) => differences(b, f),
        (Words::W16(b), Words::W16(f)) => differences(b, f),
        (Words::W32(b), Words::W32(f)) => differences(b, f),
        _ => fine.len() as u64,
    }
}

/// As [`count_changed`], for each row of so many words.
pub(crate) fn changed_in_rows(base: &Words, fine: &Words, width: usize) -> Vec<u64> {
    fn rows<W: Eq>(base: &[W], fine: &[W], width: usize) -> Vec<u64> {
        let rows = base.chunks(width).zip(fine.chunks(width));
        rows.map(|(base, fine)| differences(base, fine)).collect()
    }
    match (base, fine) {
        (Words::W8(b), Words::W8(f)) => rows(b, f, width),
        (Words::W16(b), Words::W16(f)) => rows(b, f, width),
        (Words::W32(b), Words::W32(f)) => rows(b, f, width),
        _ => vec![fine.len() as u64],
    }
}

fn differences<W: Eq>(base: &[W], fine: &[W]) -> u64 {
    base.iter().zip(fine).filter(|(b, f)| b != f).count() as u64
}
