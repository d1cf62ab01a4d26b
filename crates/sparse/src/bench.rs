//! `sparse bench`: how long a model takes.

use serde_json::{Value, json};
use sparse_engine::{Activations, Half};
use sparse_eval::{Durations, Latency, LatencySpec};

use crate::context::{Context, Outcome};
use crate::machine::{load_average, peak_memory_bytes, processor};
use crate::model::{self, Numbers};
use crate::table;

/// What to repeat.
#[derive(Debug, clap::Args)]
pub struct BenchArgs {
    /// Checkpoint directories or hub ids; several are measured in turn
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompt_tokens: usize,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 32)]
    new_tokens: usize,
    /// Answers that count
    #[arg(long, value_name = "N", default_value_t = 50)]
    samples: usize,
    /// Answers before them that do not
    #[arg(long, value_name = "N", default_value_t = 5)]
    warmup: usize,
    /// Seed of the prompt's tokens
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Quantized layers: activations in f32, or rounded to int8, which is faster
    #[arg(long, value_name = "TYPE", default_value = "int8", value_parser = model::activations)]
    activations: Activations,
    /// Weights that are not quantized: round them to f16 or bf16 while loading
    #[arg(long, value_name = "TYPE", value_parser = model::weights)]
    weights: Option<Half>,
}

/// Measures.
pub fn run(args: &BenchArgs, context: &Context) -> anyhow::Result<Outcome> {
    let numbers = Numbers {
        activations: args.activations,
        weights: args.weights,
    };
    let loaded = args
        .models
        .iter()
        .map(|spec| model::load(spec, numbers, context))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let models: Vec<_> = loaded.iter().map(|one| &one.model).collect();
    let spec = LatencySpec {
        prompt_tokens: args.prompt_tokens,
        new_tokens: args.new_tokens,
        samples: args.samples,
        warmup: args.warmup,
        seed: args.seed,
    };
    let bar = context.bar();
    let answers = models.len() * (args.samples + args.warmup);
    bar.start_count("bench", "answers", answers as u64);
    let load_before = load_average();
    let found = sparse_eval::latency(&models, spec, &bar)?;
    drop(bar);
    let load_after = load_average();
    let machine = json!({
        "processor": processor(),
        "threads": context.threads(),
        "load_average_before": load_before,
        "load_average_after": load_after,
    });
    // The process has one, whatever models are in it.
    let peak = peak_memory_bytes();
    let values: Vec<Value> = args
        .models
        .iter()
        .zip(&models)
        .zip(&found)
        .map(|((name, model), latency)| value(name, model.bytes(), latency, spec, &machine))
        .collect();
    let mut text: String = args
        .models
        .iter()
        .zip(&models)
        .zip(&found)
        .map(|((name, model), latency)| text(name, model.bytes(), latency) + "\n")
        .collect();
    let whose = match &models[..] {
        [_] => "",
        _ => ", of all models together",
    };
    let load = |load: Option<f64>| load.map_or("unknown".to_owned(), |load| format!("{load:.2}"));
    text += &table::fields(&[
        ("peak memory", format!("{}{whose}", table::bytes(peak))),
        ("threads", context.threads().to_string()),
        (
            "load average",
            format!("{} before, {} after", load(load_before), load(load_after)),
        ),
    ]);
    let mut value = match &values[..] {
        [one] => one.clone(),
        many => json!({"models": many}),
    };
    value["peak_memory_bytes"] = json!(peak);
    context.emit(&value, &text)?;
    Ok(Outcome::Yes)
}

fn value(name: &str, bytes: usize, latency: &Latency, spec: LatencySpec, machine: &Value) -> Value {
    json!({
        "model": name,
        "prompt_tokens": spec.prompt_tokens,
        "new_tokens": spec.new_tokens,
        "samples": spec.samples,
        "warmup": spec.warmup,
        "latency_ms": durations(latency.answer),
        "time_to_first_token_ms": durations(latency.first_token),
        "token_latency_ms": durations(latency.token),
        "prefill_tokens_per_second": latency.prefill_tokens_per_second,
        "decode_tokens_per_second": latency.decode_tokens_per_second,
        "throughput_tokens_per_second": latency.throughput_tokens_per_second,
        "model_bytes": bytes,
        "machine": machine,
    })
}

fn durations(found: Durations) -> Value {
    json!({"p50": found.p50, "p95": found.p95, "p99": found.p99, "mean": found.mean})
}

fn text(name: &str, bytes: usize, latency: &Latency) -> String {
    let row = |label: &str, found: Durations| {
        format!(
            "{label:22}{:>11.2}{:>11.2}{:>11.2}{:>11.2}\n",
            found.p50, found.p95, found.p99, found.mean
        )
    };
    let mut out = format!("{}\n", table::shorten(name, 80));
    out += &format!(
        "{:22}{:>11}{:>11}{:>11}{:>11}\n",
        "ms", "p50", "p95", "p99", "mean"
    );
    out += &row("whole answer", latency.answer);
    out += &row("time to first token", latency.first_token);
    out += &row("each further token", latency.token);
    out += &table::fields(&[
        (
            "prefill",
            format!("{:.0} tokens/s", latency.prefill_tokens_per_second),
        ),
        (
            "decode",
            format!("{:.1} tokens/s", latency.decode_tokens_per_second),
        ),
        (
            "throughput",
            format!("{:.1} new tokens/s", latency.throughput_tokens_per_second),
        ),
        ("weights", table::bytes(bytes as u64)),
    ]);
    out
}
