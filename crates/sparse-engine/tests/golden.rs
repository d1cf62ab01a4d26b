//! Logits and greedy texts are those of transformers, for every architecture and switch.
//!
//! `conformance/engine_golden.py` made the files, and checks them afresh.
#![allow(clippy::unwrap_used)]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sparse_checkpoint::{Checkpoint, RelPath, Shard};
use sparse_engine::{
    Error, Half, Linear, Model, ModelConfig, Order, Plain, Positions, Sampling, Source,
};
use support::{floats, golden, largest_difference, load, tokens};

/// The golden file of a model; it lies among its shards.
fn expected(dir: &Path) -> Shard {
    Shard::open(dir, RelPath::parse("golden.safetensors").unwrap()).unwrap()
}

fn models() -> Vec<PathBuf> {
    let dirs = std::fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut dirs: Vec<_> = dirs
        .filter(|dir| dir.join("golden.safetensors").exists())
        .collect();
    dirs.sort();
    // As many as `conformance/golden_configs.py` names: none is missed in silence.
    assert_eq!(dirs.len(), 50);
    dirs
}

#[test]
fn logits_are_those_of_transformers() {
    for dir in models() {
        let (model, golden) = (load(&dir), expected(&dir));
        let input = tokens(&golden, "input_ids");
        let expected = floats(&golden, "logits");
        let hidden = model.run(&[&input], None).unwrap();
        let logits = model.logits(&hidden, 0..input.len()).unwrap();
        let difference = largest_difference(&logits, &expected);
        assert!(difference < 1e-3, "{}: {difference}", dir.display());
    }
}

#[test]
fn greedy_texts_are_those_of_transformers() {
    for dir in models() {
        let (model, golden) = (load(&dir), expected(&dir));
        let (input, greedy) = (tokens(&golden, "input_ids"), tokens(&golden, "greedy"));
        // transformers goes on beyond the positions that a configuration names.
        let room = model.config().context + 1 - input.len();
        let greedy = &greedy[..greedy.len().min(room)];
        assert!(greedy.len() >= 10);
        let generated = model
            .generate(&input, greedy.len(), &[], Sampling::greedy(), &mut |_| {
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(generated.tokens, greedy, "{}", dir.display());
    }
}

/// Losses and logits are the same whether texts run together or alone, at once or in pieces.
#[test]
fn batches_and_pieces_change_nothing() {
    for dir in models() {
        let (model, golden) = (load(&dir), expected(&dir));
        let input = tokens(&golden, "input_ids");
        let whole = model.run(&[&input], None).unwrap();
        let logits = model.logits(&whole, 0..input.len()).unwrap();

        let (long, short) = (&input[..], &input[..7]);
        let batch = model.run(&[short, long, short], None).unwrap();
        let alone = model.run(&[short], None).unwrap();
        let alone = model.logits(&alone, 0..short.len()).unwrap();
        for (rows, expected) in [
            (0..7, &alone),
            (7..7 + input.len(), &logits),
            (7 + input.len()..14 + input.len(), &alone),
        ] {
            let batched = model.logits(&batch, rows.clone()).unwrap();
            let difference = largest_difference(&batched, expected);
            assert!(
                difference < 1e-4,
                "{}, {rows:?}: {difference}",
                dir.display()
            );
        }

        // Some rows of one text and nearly all of another: the last block leaves out the rest.
        let (of_short, vocabulary) = ([2, 5], model.config().vocabulary);
        let of_long = 0..input.len() - 1;
        let wanted = of_short
            .into_iter()
            .chain(of_long.clone().map(|row| short.len() + row));
        let some = model
            .run_for(&[short, long], &wanted.collect::<Vec<_>>())
            .unwrap();
        let rows: Vec<usize> = of_short.into_iter().chain(of_long).collect();
        let targets: Vec<u32> = rows.iter().map(|&row| input[row + 1]).collect();
        let losses = model.losses(&some, &targets).unwrap();
        assert_eq!(losses.len(), rows.len());
        let alone = alone.chunks_exact(vocabulary);
        let expected = of_short.map(|row| alone.clone().nth(row).unwrap());
        let expected = expected.into_iter().chain(logits.chunks_exact(vocabulary));
        for ((loss, row), target) in losses.iter().zip(expected).zip(targets) {
            let most = row.iter().fold(f32::MIN, |most, &one| most.max(one));
            let sum: f64 = row.iter().map(|&one| f64::from(one - most).exp()).sum();
            let expected = sum.ln() + f64::from(most - row[target as usize]);
            assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
        }

        // Frequencies that depend on the length do so piece by piece, as in transformers.
        if let Positions::Rotary(rotary) = &model.config().positions
            && rotary.by_length()
        {
            continue;
        }
        let mut cache = model.cache(input.len());
        let mut pieces = Vec::new();
        for piece in [&input[..1], &input[1..4], &input[4..]] {
            let hidden = model.extend(piece, &mut cache).unwrap();
            pieces.extend(model.logits(&hidden, 0..piece.len()).unwrap());
        }
        assert!(
            largest_difference(&pieces, &logits) < 1e-4,
            "{}",
            dir.display()
        );
    }
}

/// A checkpoint that stores its embedding, its head, or both with the same values.
struct Stored<'a> {
    plain: Plain<'a>,
    names: &'static [&'static str],
}

impl Source for Stored<'_> {
    fn has(&self, name: &str) -> bool {
        match name.strip_suffix(".weight") {
            Some(name @ ("lm_head" | "model.embed_tokens")) => self.names.contains(&name),
            _ => self.plain.has(name),
        }
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        self.plain.vector(name, len)
    }

    fn linear(
        &self,
        name: &str,
        outputs: usize,
        inputs: usize,
        order: Order,
    ) -> Result<Arc<dyn Linear>, Error> {
        let stored = match name {
            "lm_head" => "model.embed_tokens",
            other => other,
        };
        self.plain.linear(stored, outputs, inputs, order)
    }
}

/// One matrix does for both where both would hold the same.
#[test]
fn tied_weights_are_held_once_however_they_are_stored() {
    let dir = golden().join("llama-tied");
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let (expected, golden) = (load(&dir), expected(&dir));
    let input = tokens(&golden, "input_ids");
    for names in [
        &["model.embed_tokens"][..],
        &["lm_head"],
        &["model.embed_tokens", "lm_head"],
    ] {
        let plain = Plain::open(&checkpoint).unwrap();
        let source = Stored { plain, names };
        let model = Model::load(expected.config().clone(), &source, 2, &|_, _| ()).unwrap();
        assert_eq!(model.bytes(), expected.bytes(), "{names:?}");
        let hidden = model.run(&[&input], None).unwrap();
        let logits = model.logits(&hidden, 0..input.len()).unwrap();
        let difference = largest_difference(&logits, &floats(&golden, "logits"));
        assert!(difference < 1e-3, "{names:?}: {difference}");
    }
}

/// Every weight is the nearest of its new type, whatever it was stored in, and takes two bytes.
#[test]
fn weights_are_rounded_while_they_are_read() {
    let half: fn(f32) -> f32 = |value| half::f16::from_f32(value).to_f32();
    let bf16: fn(f32) -> f32 = |value| half::bf16::from_f32(value).to_f32();
    for name in ["gpt2", "llama", "gpt2-fp16", "gpt-neox-half"] {
        let checkpoint = Checkpoint::open(&golden().join(name)).unwrap();
        let stored = load(&golden().join(name));
        for (to, round) in [(Half::F16, half), (Half::Bf16, bf16)] {
            let source = Plain::open(&checkpoint).unwrap().rounded(to);
            let rounded = Model::load(stored.config().clone(), &source, 1, &|_, _| ()).unwrap();
            for ((name, was), (_, is)) in stored.layers().zip(rounded.layers()) {
                let (mut before, mut after) = (vec![0.0; was.inputs()], vec![0.0; was.inputs()]);
                for output in 0..was.outputs() {
                    was.weights(output, &mut before);
                    is.weights(output, &mut after);
                    assert!(
                        before
                            .iter()
                            .map(|&value| round(value))
                            .eq(after.iter().copied())
                    );
                }
                let padded = was.outputs().next_multiple_of(16);
                assert_eq!(is.bytes(), padded * was.inputs() * 2, "{name}");
            }
        }
    }
}

/// Keys as transformers 4 spelt them.
#[test]
fn older_configurations_say_the_same() {
    let mut count = 0;
    for dir in models() {
        let Ok(text) = std::fs::read_to_string(dir.join("config.v4.json")) else {
            continue;
        };
        count += 1;
        let old = serde_json::from_str(&text).unwrap();
        let old = ModelConfig::parse(&old, Path::new("config.v4.json")).unwrap();
        let new = ModelConfig::read(&Checkpoint::open(&dir).unwrap()).unwrap();
        assert_eq!(old, new, "{}", dir.display());
    }
    assert!(count >= 10, "{count} older configurations");
}
