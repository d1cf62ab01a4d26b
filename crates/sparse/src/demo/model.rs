//! The part of the tour that runs the models: perplexity, divergence, text, speed.

use std::ops::ControlFlow;

use sparse_checkpoint::Checkpoint;
use sparse_engine::{Model, ModelConfig, Plain, Sampling, Tokenizer};
use sparse_eval::{LatencySpec, Plan, Protocol, Silent, Spec, compare, latency, perplexity};

use super::Row;
use crate::table;

/// The end of the plays, which the fine-tune was trained to speak like.
static PLAYS: &str = include_str!("../../../../examples/shakespeare.txt");

/// The sentences of the benchmark that this project began with.
static SENTENCES: [&str; 3] = [
    "The quick brown fox jumps over the lazy dog.",
    "Machine learning is a subset of artificial intelligence.",
    "Python is a popular programming language for data science.",
];

/// Runs base and fine-tune.
pub fn rows(base: &Checkpoint, fine: &Checkpoint, threads: usize) -> anyhow::Result<Vec<Row>> {
    let tokenizer = Tokenizer::open(base)?;
    let load = |checkpoint: &Checkpoint| -> anyhow::Result<Model> {
        let config = ModelConfig::read(checkpoint)?;
        let source = Plain::open(checkpoint)?;
        Ok(Model::load(config, &source, threads, &|_, _| ())?)
    };
    let (base, fine) = (load(base)?, load(fine)?);
    let plan = |protocol, documents: &[String]| {
        let spec = Spec {
            protocol,
            context: None,
            stride: None,
            max_tokens: None,
        };
        Plan::new(&spec, documents, &tokenizer, base.config().context)
    };
    let plays = plan(Protocol::HfStride, &[PLAYS.to_owned()])?;
    let sentences = plan(Protocol::PerText, &SENTENCES.map(str::to_owned))?;
    Ok(vec![
        learned(&base, &fine, &plays)?,
        per_text(&base, &sentences)?,
        goes_on(&fine, &tokenizer)?,
        speed(&fine)?,
    ])
}

/// Fine-tuning on plays must have made plays more likely.
fn learned(base: &Model, fine: &Model, plan: &Plan) -> anyhow::Result<Row> {
    let found = compare(base, fine, plan, &Silent)?;
    let (before, after) = (found.base.perplexity, found.candidate.perplexity);
    Ok(Row {
        what: "perplexity of plays",
        result: format!(
            "base {before:.1}, fine-tune {after:.1}, KL {}",
            table::with_error(found.kl_mean, found.kl_stderr, 4)
        ),
        holds: after < before && found.kl_mean > 0.0 && found.top1_agreement < 1.0,
    })
}

/// Any model is better than guessing among all tokens.
fn per_text(model: &Model, plan: &Plan) -> anyhow::Result<Row> {
    let found = perplexity(model, plan, &Silent)?;
    Ok(Row {
        what: "perplexity, per-text",
        result: format!("{:.1} on three sentences of English", found.perplexity),
        holds: (1.0..model.config().vocabulary as f64).contains(&found.perplexity),
    })
}

fn goes_on(model: &Model, tokenizer: &Tokenizer) -> anyhow::Result<Row> {
    let prompt = tokenizer.encode_prompt("KING RICHARD:\n")?;
    let say = || {
        let sampling = Sampling::random(0.7, Some(40), None, 3)?;
        let mut go_on = |_| ControlFlow::Continue(());
        model.generate(&prompt, 12, tokenizer.stops(), sampling, &mut go_on)
    };
    let (one, other) = (say()?, say()?);
    let text = tokenizer.decode(&one.tokens)?.replace('\n', " ");
    Ok(Row {
        what: "generate",
        result: format!("KING RICHARD: {}", table::shorten(&text, 33)),
        holds: one.tokens == other.tokens && !text.trim().is_empty(),
    })
}

fn speed(model: &Model) -> anyhow::Result<Row> {
    let spec = LatencySpec {
        prompt_tokens: 128,
        new_tokens: 32,
        samples: 5,
        warmup: 1,
        seed: 0,
    };
    let found = latency(&[model], spec, &Silent)?;
    let Some(found) = found.first() else {
        anyhow::bail!("the model was not measured");
    };
    let (first, each) = (found.first_token.p50, found.token.p50);
    Ok(Row {
        what: "bench",
        result: format!("first token {first:.1} ms, each further one {each:.2} ms"),
        holds: first > 0.0 && each > 0.0 && each < first,
    })
}
