//! `sparse eval`: how well a model predicts a text.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sparse_engine::{Activations, Half, Model, Statistics};
use sparse_eval::{Comparison, Figures, Plan, Protocol, Reading, Spec};

use crate::context::{Context, Hinted, Outcome};
use crate::machine::peak_memory_bytes;
use crate::model::{self, Numbers};
use crate::table;

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// Checkpoint directories or hub ids (owner/name[@revision]); several go with --against
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// Text to predict: .txt, .jsonl or .parquet
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// hf-stride, gptq-paper, llama-cpp, lm-eval or per-text
    #[arg(long, value_name = "P", default_value = "hf-stride")]
    protocol: Protocol,
    /// Tokens of a window; by default the model's context (llama-cpp: 512)
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Tokens from one window to the next (hf-stride); by default the context
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Cut each text off after so many tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Column of a .jsonl or .parquet file
    #[arg(long, value_name = "NAME", default_value = "text")]
    column: String,
    /// Each line of a .txt is a text of its own
    #[arg(long)]
    lines: bool,
    /// Measure the divergence from this checkpoint too, window by window
    #[arg(long, value_name = "BASE", conflicts_with = "compare")]
    against: Option<String>,
    /// Compare with an earlier result of --json, kept in this file
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Also show what goes into each linear layer: calibration statistics
    #[arg(long)]
    statistics: bool,
    /// Quantized layers: activations in f32, or rounded to int8, which is faster
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = model::activations)]
    activations: Activations,
    /// Weights that are not quantized: round them to f16 or bf16 while loading; the base of --against stays as stored
    #[arg(long, value_name = "TYPE", value_parser = model::weights)]
    weights: Option<Half>,
}

/// Measures.
pub fn run(args: EvalArgs, context: &Context) -> anyhow::Result<Outcome> {
    let reading = Reading {
        column: &args.column,
        lines: args.lines,
    };
    let documents = sparse_eval::read(&args.text, reading)?;
    let earlier = args.compare.as_deref().map(read_earlier).transpose()?;
    let numbers = Numbers {
        activations: args.activations,
        weights: args.weights,
    };
    // One is required by the command line.
    let Some((first, others)) = args.models.split_first() else {
        return Ok(Outcome::No);
    };
    if !others.is_empty() && (args.against.is_none() || args.statistics) {
        return Err(Hinted {
            message: "several models have only their divergence from one base in common".to_owned(),
            hint: "give --against BASE, without --statistics; or one MODEL".to_owned(),
        }
        .into());
    }
    let loaded = model::load(first, numbers, context)?;
    let spec = Spec {
        protocol: args.protocol,
        context: args.context,
        stride: args.stride,
        max_tokens: args.max_tokens,
    };
    let tokenizer = loaded.tokenizer?;
    let limit = loaded.model.config().context;
    let plan = Plan::new(&spec, &documents, &tokenizer, limit)?;
    // The windows of the first, though others may have room for larger ones.
    let same = Spec {
        context: Some(plan.context()),
        stride: Some(plan.stride()),
        ..spec
    };
    let load = |name: &String, numbers: Numbers| -> anyhow::Result<Model> {
        let other = model::load(name, numbers, context)?;
        let limit = other.model.config().context;
        if limit < plan.context() {
            return Err(Hinted {
                message: format!(
                    "windows of {} tokens do not fit the context of {name}, {limit}",
                    plan.context()
                ),
                hint: format!("measure all with --context {limit}"),
            }
            .into());
        }
        if Plan::new(&same, &documents, &other.tokenizer?, limit)? != plan {
            return Err(sparse_eval::Error::Incomparable {
                message: "their tokenizers cut the text into different tokens".to_owned(),
            }
            .into());
        }
        Ok(other.model)
    };
    let stored = Numbers {
        weights: None,
        ..numbers
    };
    let base = args.against.as_ref().map(|base| load(base, stored));
    let base = base.transpose()?;
    if let (Some(base), false) = (&base, others.is_empty()) {
        let others = others.iter().map(|name| load(name, numbers));
        let others: Vec<Model> = others.collect::<anyhow::Result<_>>()?;
        let models: Vec<&Model> = std::iter::once(&loaded.model).chain(&others).collect();
        return several(&args.models, &models, base, &plan, context);
    }
    if let Some(earlier) = &earlier {
        earlier.check(&plan)?;
    }

    let bar = context.bar();
    let models = if base.is_some() {
        "both models"
    } else {
        "eval"
    };
    bar.start_count(models, "tokens", plan.processed_tokens() as u64);
    let start = std::time::Instant::now();
    let (figures, comparison) = match &base {
        None => (sparse_eval::perplexity(&loaded.model, &plan, &bar)?, None),
        Some(base) => {
            let found = sparse_eval::compare(base, &loaded.model, &plan, &bar)?;
            (found.candidate.clone(), Some(found))
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    drop(bar);

    let rate = plan.processed_tokens() as f64 / seconds;
    let mut value = json!({
        "protocol": figures.protocol,
        "context": figures.context,
        "stride": figures.stride,
        "tokens": figures.tokens,
        "scored_tokens": figures.scored_tokens,
        "processed_tokens": plan.processed_tokens(),
        "nll": figures.nll,
        "perplexity": figures.perplexity,
        "perplexity_stderr": figures.perplexity_stderr,
        "text_digest": figures.text_digest,
        "tokens_per_second": rate,
        "seconds": seconds,
        "model_bytes": loaded.model.bytes(),
    });
    let mut rows = vec![
        (
            "perplexity",
            table::with_error(figures.perplexity, figures.perplexity_stderr, 4),
        ),
        ("protocol", protocol(&figures)),
        ("tokens", tokens(&figures)),
    ];
    if let Some((words, bits_per_byte)) = figures.words {
        value["words"] = json!(words);
        value["bits_per_byte"] = json!(bits_per_byte);
        rows.push(("words", table::count(words as u64)));
        rows.push(("bits per byte", format!("{bits_per_byte:.4}")));
    }
    if let Some(skipped) = figures.skipped_documents {
        value["skipped_documents"] = json!(skipped);
        if skipped > 0 {
            let count = table::count(skipped as u64);
            rows.push((
                "left out",
                format!("{count} texts of fewer than two tokens"),
            ));
        }
    }
    if let Some(found) = &comparison {
        add_comparison(found, &mut value);
        show_comparison(found, &mut rows);
    }
    if let Some(earlier) = &earlier {
        let change = 100.0 * (figures.perplexity / earlier.perplexity - 1.0);
        value["base_perplexity"] = json!(earlier.perplexity);
        value["ppl_delta_pct"] = json!(change);
        let error = earlier.value["perplexity_stderr"].as_f64();
        let then = table::with_error(earlier.perplexity, error, 4);
        rows.push(("earlier", then));
        rows.push(("change", format!("{change:+.2} %")));
    }
    rows.push((
        "speed",
        format!("{rate:.0} tokens/s, {}", table::seconds(seconds)),
    ));
    let mut text = table::fields(&rows);
    if args.statistics {
        let layers = statistics(&loaded.model, &plan, context)?;
        text += &layers_text(&layers);
        value["layers"] = layers.iter().map(LayerRow::value).collect();
    }
    value["peak_memory_bytes"] = json!(peak_memory_bytes());
    context.emit(&value, &text)?;
    Ok(Outcome::Yes)
}

/// Measures several models against one base, which runs once for all of them.
fn several(
    names: &[String],
    models: &[&Model],
    base: &Model,
    plan: &Plan,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let bar = context.bar();
    bar.start_count("all models", "tokens", plan.processed_tokens() as u64);
    let start = std::time::Instant::now();
    let found = sparse_eval::compare_all(base, models, plan, &bar)?;
    let seconds = start.elapsed().as_secs_f64();
    drop(bar);

    let Some(first) = found.first() else {
        return Ok(Outcome::No);
    };
    let rate = plan.processed_tokens() as f64 / seconds;
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for ((name, model), found) in names.iter().zip(models).zip(&found) {
        let figures = &found.candidate;
        let mut value = json!({
            "model": name,
            "model_bytes": model.bytes(),
            "nll": figures.nll,
            "perplexity": figures.perplexity,
            "perplexity_stderr": figures.perplexity_stderr,
        });
        add_comparison(found, &mut value);
        values.push(value);
        rows.push([
            table::shorten(name, 26),
            table::bytes(model.bytes() as u64),
            format!("{:.4}", figures.perplexity),
            format!("{:+.3} %", found.ppl_delta_pct()),
            format!("{:.6}", found.kl_mean),
            format!("{:.2} %", 100.0 * found.top1_agreement),
        ]);
    }
    let base = &first.base;
    let mut text = format!(
        "{:26} {:>8} {:>11} {:>10} {:>10} {:>9}\n",
        "model", "in use", "perplexity", "change", "KL", "same top"
    );
    for [name, size, perplexity, change, kl, same] in rows {
        text += &format!("{name:26} {size:>8} {perplexity:>11} {change:>10} {kl:>10} {same:>9}\n");
    }
    text.push('\n');
    text += &table::fields(&[
        (
            "base",
            table::with_error(base.perplexity, base.perplexity_stderr, 4),
        ),
        ("protocol", protocol(base)),
        ("tokens", tokens(base)),
        (
            "speed",
            format!("{rate:.0} tokens/s, {}", table::seconds(seconds)),
        ),
    ]);
    let value = json!({
        "protocol": base.protocol,
        "context": base.context,
        "stride": base.stride,
        "tokens": base.tokens,
        "scored_tokens": base.scored_tokens,
        "processed_tokens": plan.processed_tokens(),
        "text_digest": base.text_digest,
        "tokens_per_second": rate,
        "seconds": seconds,
        "models": values,
        "peak_memory_bytes": peak_memory_bytes(),
    });
    context.emit(&value, &text)?;
    Ok(Outcome::Yes)
}

fn tokens(figures: &Figures) -> String {
    format!(
        "{} scored of {}",
        table::count(figures.scored_tokens as u64),
        table::count(figures.tokens as u64)
    )
}

fn protocol(figures: &Figures) -> String {
    let (name, context) = (figures.protocol, figures.context);
    if figures.stride == context {
        format!("{name}, context {context}")
    } else {
        format!("{name}, context {context}, stride {}", figures.stride)
    }
}

fn add_comparison(found: &Comparison, value: &mut Value) {
    let fields = [
        ("base_perplexity", json!(found.base.perplexity)),
        ("ppl_delta_pct", json!(found.ppl_delta_pct())),
        ("kl_mean", json!(found.kl_mean)),
        ("kl_stderr", json!(found.kl_stderr)),
        ("kl_p99", json!(found.kl_p99)),
        ("top1_agreement", json!(found.top1_agreement)),
        ("ln_ppl_ratio", json!(found.ln_ppl_ratio)),
        ("ln_ppl_ratio_stderr", json!(found.ln_ppl_ratio_stderr)),
    ];
    for (key, field) in fields {
        value[key] = field;
    }
}

fn show_comparison(found: &Comparison, rows: &mut Vec<(&'static str, String)>) {
    let base = table::with_error(found.base.perplexity, found.base.perplexity_stderr, 4);
    rows.insert(1, ("base", base));
    let sign = if found.ln_ppl_ratio < 0.0 { "" } else { "+" };
    let ratio = table::with_error(found.ln_ppl_ratio, found.ln_ppl_ratio_stderr, 5);
    let change = format!("{:+.3} %, ln ratio {sign}{ratio}", found.ppl_delta_pct());
    rows.insert(2, ("change", change));
    let kl = table::with_error(found.kl_mean, found.kl_stderr, 6);
    let kl = format!("{kl}, p99 {:.5}", found.kl_p99);
    rows.insert(3, ("KL divergence", kl));
    rows.insert(
        4,
        (
            "same top token",
            format!("{:.2} %", 100.0 * found.top1_agreement),
        ),
    );
}

/// What an earlier run has found, and what that depended on.
struct Earlier {
    path: PathBuf,
    value: Value,
    perplexity: f64,
}

fn read_earlier(path: &Path) -> anyhow::Result<Earlier> {
    let wrong = |message: String| Hinted {
        message: format!("{}: {message}", path.display()),
        hint: "give the output of an earlier `sparse eval --json`".to_owned(),
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match value["perplexity"].as_f64() {
        Some(perplexity) if value["protocol"].is_string() => Ok(Earlier {
            path: path.to_owned(),
            perplexity,
            value,
        }),
        _ => Err(wrong("holds no perplexity with its protocol".to_owned()).into()),
    }
}

impl Earlier {
    /// Refuses to compare what was measured otherwise.
    fn check(&self, plan: &Plan) -> anyhow::Result<()> {
        for (key, now) in plan.identity() {
            let then = &self.value[key];
            if *then != now {
                return Err(sparse_eval::Error::Incomparable {
                    message: format!("{} has {key} {then}, this run {now}", self.path.display()),
                }
                .into());
            }
        }
        Ok(())
    }
}

/// What goes into a layer.
struct LayerRow {
    name: String,
    rows: u64,
    mean_abs: Vec<f64>,
    second_moment: Vec<f64>,
    importance: f64,
}

impl LayerRow {
    fn value(&self) -> Value {
        json!({
            "name": self.name,
            "rows": self.rows,
            "mean_abs": self.mean_abs,
            "second_moment": self.second_moment,
            "importance": self.importance,
        })
    }
}

fn statistics(model: &Model, plan: &Plan, context: &Context) -> anyhow::Result<Vec<LayerRow>> {
    let bar = context.bar();
    bar.start_count("statistics", "tokens", plan.processed_tokens() as u64);
    let mut statistics = Statistics::new(|_| false);
    sparse_eval::calibrate(model, plan, &mut statistics, &bar)?;
    let rows = statistics.importance(model).into_iter();
    let rows = rows.filter_map(|(name, importance)| {
        let layer = statistics.layer(&name)?;
        Some(LayerRow {
            rows: layer.rows(),
            mean_abs: layer.mean_abs(),
            second_moment: layer.second_moment(),
            importance,
            name,
        })
    });
    Ok(rows.collect())
}

fn layers_text(layers: &[LayerRow]) -> String {
    let total: f64 = layers.iter().map(|layer| layer.importance).sum();
    let mut out = format!(
        "\n{:40}{:>9}{:>11}{:>9}{:>11}\n",
        "layer", "mean |x|", "rms x", "largest", "importance"
    );
    for layer in layers {
        let count = layer.mean_abs.len() as f64;
        let mean = layer.mean_abs.iter().sum::<f64>() / count;
        let square = layer.second_moment.iter().sum::<f64>() / count;
        let largest = layer
            .second_moment
            .iter()
            .fold(0.0, |most: f64, &one| most.max(one));
        out += &format!(
            "{:40}{mean:>9.3}{:>11.3}{:>8.1}x{:>10.2}%\n",
            table::shorten(&layer.name, 39),
            square.sqrt(),
            (largest / square).sqrt(),
            100.0 * layer.importance / total,
        );
    }
    out
}
