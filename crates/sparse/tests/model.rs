//! `sparse eval`, `generate` and `bench` from the outside, failures included.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{Desk, copy};
use insta::assert_snapshot;
use serde_json::Value;

/// The trained Llama of the engine's tests, and texts of the evaluation's.
fn desk() -> Desk {
    let desk = Desk::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    copy(
        &crates.join("sparse-engine/tests/golden/tiny-llama"),
        &desk.path("llama"),
    );
    copy(&crates.join("sparse-eval/tests/data"), &desk.path("text"));
    desk
}

fn show(desk: &Desk, lines: &[&str]) -> String {
    let runs: Vec<String> = lines.iter().map(|line| desk.show(line)).collect();
    runs.join("\n")
}

fn json(desk: &Desk, line: &str) -> Value {
    let args: Vec<&str> = line.split(' ').chain(["--json"]).collect();
    let run = desk.run(&args);
    assert_eq!(run.code, Some(0), "{line}: {}{}", run.stdout, run.stderr);
    run.json()
}

fn near(value: &Value, expected: f64, tolerance: f64) {
    let found = value.as_f64().unwrap();
    assert!(
        (found / expected - 1.0).abs() < tolerance,
        "{found}, not {expected}"
    );
}

/// Replaces `key` in a checkpoint's configuration.
fn configure(desk: &Desk, model: &str, key: &str, value: Value) {
    let path = desk.path(&format!("{model}/config.json"));
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// Rewrites the header of a checkpoint's weights.
fn change_header(desk: &Desk, model: &str, change: impl FnOnce(&mut Value)) {
    let path = desk.path(&format!("{model}/model.safetensors"));
    let bytes = fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    change(&mut header);
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    let parts = [&length[..], header.as_bytes(), &bytes[data..]];
    fs::write(path, parts.concat()).unwrap();
}

#[test]
fn help() {
    let lines = ["eval --help", "generate --help", "bench --help"];
    assert_snapshot!(show(&desk(), &lines));
}

#[test]
fn perplexity_is_that_of_transformers_and_says_its_protocol() {
    let desk = desk();
    let found = json(&desk, "eval base --text text/wikitext2_slice.txt");
    near(&found["perplexity"], 69.287_878_9, 1e-4);
    assert_eq!(found["protocol"], "hf-stride");
    assert_eq!(
        (&found["context"], &found["stride"]),
        (&256.into(), &256.into())
    );
    assert_eq!(
        (&found["tokens"], &found["scored_tokens"]),
        (&9843.into(), &9804.into())
    );

    let rows = "--text text/wikitext2_slice.parquet --protocol per-text --context 64";
    let found = json(&desk, &format!("eval llama {rows}"));
    assert_eq!(found["protocol"], "per-text");
    let text = desk
        .run(&format!("eval llama {rows}").split(' ').collect::<Vec<_>>())
        .stdout;
    assert!(text.contains("protocol    per-text, context 64"), "{text}");
}

/// The fine-tune that ships as a delta, against the base it was made from.
#[test]
fn divergence_is_that_of_transformers() {
    let desk = desk();
    let delta = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/finetune.delta");
    copy(&delta, &desk.path("delta"));
    json(&desk, "delta reconstruct base delta -o tuned");
    let found = json(
        &desk,
        "eval tuned --against base --text text/wikitext2_slice.txt",
    );
    near(&found["perplexity"], 70.239_465_4, 1e-4);
    near(&found["base_perplexity"], 69.287_878_9, 1e-4);
    near(&found["ppl_delta_pct"], 1.373_380_87, 1e-2);
    near(&found["kl_mean"], 0.014_563_966, 1e-3);
    near(&found["kl_stderr"], 0.000_109_357, 1e-3);
    near(&found["kl_p99"], 0.045_313_436, 1e-3);
    near(&found["top1_agreement"], 0.823_643_41, 1e-3);
    near(&found["ln_ppl_ratio"], 0.013_640_352, 1e-3);
    near(&found["ln_ppl_ratio_stderr"], 0.001_771_268, 1e-3);
}

#[test]
fn several_models_are_measured_against_one_base_at_once() {
    let desk = desk();
    let text = "--text text/wikitext2_slice.txt --max-tokens 600";
    let line = format!("eval base llama base --against llama {text}");
    let found = json(&desk, &line);
    let models = found["models"].as_array().unwrap();
    assert_eq!(models.len(), 3);
    for (name, together) in ["base", "llama", "base"].iter().zip(models) {
        let alone = json(&desk, &format!("eval {name} --against llama {text}"));
        assert_eq!(together["model"], *name);
        for key in [
            "nll",
            "perplexity",
            "kl_mean",
            "kl_p99",
            "top1_agreement",
            "model_bytes",
        ] {
            assert_eq!(together[key], alone[key], "{name} {key}");
        }
    }
    assert_eq!(models[1]["kl_mean"], 0.0);
    assert!(models[0]["kl_mean"].as_f64().unwrap() > 0.01);
    let parts: Vec<&str> = line.split(' ').collect();
    let table = desk.run(&parts).stdout;
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    let lines = [
        "eval base llama --text text/wikitext2_slice.txt",
        "eval base llama --against llama --statistics --text text/wikitext2_slice.txt",
        "eval --text text/wikitext2_slice.txt",
    ];
    assert_snapshot!(show(&desk, &lines));
}

#[test]
fn what_rounding_the_weights_loses_is_measured_against_the_stored_ones() {
    let desk = desk();
    let by = |to: &str| {
        let options = "--protocol llama-cpp --context 64 --against base";
        json(
            &desk,
            &format!(
                "eval base --text text/wikitext2_slice.txt --max-tokens 640 {options} --weights {to}"
            ),
        )
    };
    // The weights are bf16 already; f16 rounds the smallest of them.
    assert_eq!(by("bf16")["kl_mean"], 0.0);
    let kl = by("f16")["kl_mean"].as_f64().unwrap();
    assert!(kl > 0.0 && kl < 1e-6, "{kl}");
}

#[test]
fn figures_of_different_protocols_are_not_compared() {
    let desk = desk();
    let found = json(
        &desk,
        "eval base --text text/wikitext2_slice.txt --max-tokens 600",
    );
    desk.put("earlier.json", found.to_string().as_bytes());
    let again = json(
        &desk,
        "eval fine --text text/wikitext2_slice.txt --max-tokens 600 --compare earlier.json",
    );
    assert_eq!(again["base_perplexity"], found["perplexity"]);
    let line = "eval fine --text text/wikitext2_slice.txt --max-tokens 600 --compare earlier.json";
    let text = desk.run(&line.split(' ').collect::<Vec<_>>()).stdout;
    let figure = |key: &str| found[key].as_f64().unwrap();
    let earlier = format!(
        "earlier     {:.4} ± {:.4}\n",
        figure("perplexity"),
        figure("perplexity_stderr")
    );
    assert!(text.contains(&earlier), "{text}");
    assert_snapshot!(show(
        &desk,
        &[
            "eval base --text text/wikitext2_slice.txt --max-tokens 600 --protocol gptq-paper --compare earlier.json",
            "eval base --text text/wikitext2_slice.txt --max-tokens 600 --context 128 --compare earlier.json",
            "eval base --text text/wikitext2_slice.txt --max-tokens 500 --compare earlier.json --json",
            "eval base --text text/wikitext2_slice.txt --compare base/config.json",
            "eval base --text text/wikitext2_slice.txt --compare nowhere.json",
        ]
    ));
}

#[test]
fn a_single_token_has_a_figure_by_lm_eval_and_no_standard_error() {
    let desk = desk();
    desk.put("word.txt", b"a");
    let line = "eval base --text word.txt --protocol lm-eval";
    let found = json(&desk, line);
    assert_eq!(
        (&found["scored_tokens"], &found["words"]),
        (&1.into(), &1.into())
    );
    assert!(found["perplexity"].as_f64().unwrap() > 1.0);
    assert_eq!(found["perplexity_stderr"], Value::Null);
    let text = desk.run(&line.split(' ').collect::<Vec<_>>()).stdout;
    assert!(!text.contains('±'), "{text}");
    let found = json(&desk, &format!("{line} --against base"));
    for key in ["kl_stderr", "ln_ppl_ratio_stderr"] {
        assert_eq!(found[key], Value::Null, "{key}");
    }
}

#[test]
fn texts_too_short_for_a_loss_are_counted() {
    let desk = desk();
    desk.put("lines.txt", b"a\nthe king said to the\nb\n");
    let line = "eval base --text lines.txt --lines --protocol per-text";
    let found = json(&desk, line);
    assert_eq!(found["skipped_documents"], 2);
    let text = desk.run(&line.split(' ').collect::<Vec<_>>()).stdout;
    assert!(
        text.contains("left out    2 texts of fewer than two tokens"),
        "{text}"
    );
    let joined = json(&desk, "eval base --text lines.txt");
    assert_eq!(joined["skipped_documents"], Value::Null);
}

/// The windows are the candidate's, as far as the base has room for them.
#[test]
fn a_base_of_another_context_is_compared_where_it_can_be() {
    let desk = desk();
    configure(&desk, "llama", "max_position_embeddings", 512.into());
    let text = "--text text/wikitext2_slice.txt --max-tokens 600";
    let found = json(&desk, &format!("eval base {text} --against llama"));
    assert_eq!(found["context"], 256);
    configure(&desk, "llama", "max_position_embeddings", 128.into());
    let found = json(
        &desk,
        &format!("eval base {text} --against llama --context 128"),
    );
    assert_eq!(found["context"], 128);
    let line = format!("eval base {text} --against llama");
    assert_snapshot!(show(&desk, &[&line]));
}

#[test]
fn models_that_read_a_text_as_different_tokens_are_not_compared() {
    let desk = desk();
    let path = desk.path("llama/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["model"]["merges"] = serde_json::json!([]);
    fs::write(path, tokenizer.to_string()).unwrap();
    let line = "eval base --text text/wikitext2_slice.txt --max-tokens 600 --against llama";
    assert_snapshot!(show(&desk, &[line]));
}

#[test]
fn calibration_statistics_are_shown_layer_by_layer() {
    let desk = desk();
    let line = "eval base --text text/wikitext2_slice.txt --max-tokens 512 --statistics";
    let found = json(&desk, line);
    let layers = found["layers"].as_array().unwrap();
    let config: Value =
        serde_json::from_slice(&fs::read(desk.path("base/config.json")).unwrap()).unwrap();
    assert_eq!(layers.len() as u64, 4 * config["n_layer"].as_u64().unwrap());
    for layer in layers {
        // Two windows of 256 tokens, of which the last is predicted only.
        assert_eq!(layer["rows"], 510);
        assert!(layer["importance"].as_f64().unwrap() > 0.0);
        let moments = layer["second_moment"].as_array().unwrap();
        for (abs, square) in layer["mean_abs"].as_array().unwrap().iter().zip(moments) {
            assert!(abs.as_f64().unwrap().powi(2) <= square.as_f64().unwrap() * (1.0 + 1e-9));
        }
    }
    let text = desk.run(&line.split(' ').collect::<Vec<_>>()).stdout;
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(text.contains("transformer.h.0.attn.c_attn"));
}

#[test]
fn a_model_goes_on_the_same_way_each_time() {
    let desk = desk();
    let say = |more: &str| {
        let line = format!("generate llama --prompt Theory --max-tokens 24 --json {more}");
        let args: Vec<&str> = line.split(' ').filter(|arg| !arg.is_empty()).collect();
        desk.run(&args).json()
    };
    let greedy = say("");
    assert_eq!(
        (&greedy["tokens"], &greedy["end"]),
        (&24.into(), &"length".into())
    );
    assert_eq!(greedy["text"], say("--temperature 0")["text"]);
    assert_eq!(greedy["text"], say("--temperature 0.7 --top-k 1")["text"]);
    let seeded =
        |seed: u32| say(&format!("--temperature 1 --top-p 0.9 --seed {seed}"))["text"].clone();
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));

    let text = greedy["text"].as_str().unwrap();
    let stream = desk.run(&[
        "generate",
        "llama",
        "--prompt",
        "Theory",
        "--max-tokens",
        "24",
    ]);
    assert_eq!(stream.stdout, format!("{text}\n"));
    let stop = &text[text.len() / 2..text.len() / 2 + 3];
    let stopped = desk
        .run(&[
            "generate", "llama", "--prompt", "Theory", "--json", "--stop", stop,
        ])
        .json();
    assert_eq!(stopped["text"], text[..text.find(stop).unwrap()]);
    assert_eq!(stopped["end"], "stop");
    let nothing = desk.run(&["generate", "llama", "--prompt", "Theory", "--stop", ""]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(2), ""));
    assert_eq!(
        nothing.stderr,
        "error: --stop should be a text, found an empty one\n\
         hint: without --stop, a text ends where the model ends it\n"
    );
}

#[test]
fn a_conversation_is_written_by_the_chat_template() {
    let desk = desk();
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                    {% if add_generation_prompt %}assistant:{% endif %}";
    let args = |prompt| {
        let chat = [
            "generate",
            "llama",
            "--json",
            "--max-tokens",
            "8",
            "--prompt",
            prompt,
        ];
        chat.map(str::to_owned).to_vec()
    };
    let run = |args: &[String]| desk.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut chat = args("Hello");
    chat.extend(["--chat", "--system", "Be brief."].map(str::to_owned));
    assert_eq!(run(&chat).code, Some(2));
    desk.put("llama/chat_template.jinja", template.as_bytes());
    let said = run(&chat).json();
    let plain = run(&args("system: Be brief.\nuser: Hello\nassistant:")).json();
    assert_eq!(said["token_ids"], plain["token_ids"]);

    // Older checkpoints have it in the configuration: one, or several by name.
    fs::remove_file(desk.path("llama/chat_template.jinja")).unwrap();
    let path = desk.path("llama/tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let named = serde_json::json!([
        {"name": "rag", "template": "{{ documents }}"},
        {"name": "default", "template": template},
    ]);
    for form in [template.into(), named] {
        config["chat_template"] = form;
        fs::write(&path, config.to_string()).unwrap();
        assert_eq!(run(&chat).json()["token_ids"], plain["token_ids"]);
    }

    // What is wrong with a template is of no concern without --chat.
    desk.put("llama/chat_template.jinja", b"{% if %}");
    assert_eq!(
        run(&args("Hello")).json()["token_ids"]
            .as_array()
            .unwrap()
            .len(),
        8
    );
    let malformed = run(&chat);
    assert_eq!(malformed.code, Some(2));
    let error = malformed.json();
    let message = error["error"].as_str().unwrap();
    assert!(message.starts_with("chat template: "), "{message}");
    assert!(error["hint"].as_str().unwrap().contains("without --chat"));
    desk.put(
        "llama/chat_template.jinja",
        b"{{ raise_exception('no system, please') }}",
    );
    let refused = run(&chat);
    assert_eq!(refused.code, Some(2));
    assert_eq!(refused.json()["error"], "chat template: no system, please");
}

#[test]
fn a_benchmark_has_every_figure_and_the_machine() {
    let desk = desk();
    let options = "--prompt-tokens 16 --new-tokens 4 --samples 3 --warmup 1";
    let found = json(&desk, &format!("bench base {options}"));
    for key in ["latency_ms", "time_to_first_token_ms", "token_latency_ms"] {
        for part in ["p50", "p95", "p99", "mean"] {
            assert!(found[key][part].as_f64().unwrap() > 0.0, "{key}.{part}");
        }
    }
    for key in [
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "throughput_tokens_per_second",
        "model_bytes",
        "peak_memory_bytes",
    ] {
        assert!(found[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(found["samples"], 3);
    assert!(found["machine"]["threads"].as_u64().unwrap() > 0);
    let both = json(&desk, &format!("bench base llama {options}"));
    assert_eq!(both["models"][1]["model"], "llama");
    // One process has one peak.
    assert!(both["peak_memory_bytes"].as_u64().unwrap() > 0);
    assert_eq!(both["models"][0]["peak_memory_bytes"], Value::Null);
    let text = desk
        .run(
            &format!("bench base {options}")
                .split(' ')
                .collect::<Vec<_>>(),
        )
        .stdout;
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(text.contains("\nload average"), "{text}");
}

#[test]
fn bad_texts_and_options() {
    let desk = desk();
    desk.put("empty.txt", b"");
    desk.put("word.txt", b"a");
    desk.put("latin.txt", b"caf\xe9");
    desk.put("empty.jsonl", b"");
    desk.put("empty.parquet", b"");
    desk.put("rows.jsonl", b"{\"body\": \"a text\"}\n");
    desk.put("broken.jsonl", b"{\"text\": \"a\"}\n{\"text\": \n");
    let lines = [
        "eval base",
        "eval base --text nowhere.txt",
        "eval base --text base",
        "eval base --text empty.txt",
        "eval base --text empty.jsonl",
        "eval base --text empty.parquet",
        "eval base --text word.txt --protocol per-text",
        "eval base --text word.txt",
        "eval base --text word.txt --protocol gptq-paper",
        "eval base --text latin.txt",
        "eval base --text rows.jsonl",
        "eval base --text broken.jsonl",
        "eval base --text rows.jsonl --column body --protocol magic",
        "eval base --text rows.jsonl --column body --context 257",
        "eval base --text rows.jsonl --column body --context 1",
        "eval base --text rows.jsonl --column body --stride 0",
        "eval base --text rows.jsonl --column body --protocol llama-cpp --context 64 --stride 32",
        "generate base --prompt a --temperature -1",
        "generate base --prompt a --temperature 1 --top-k 0",
        "generate base --prompt a --temperature 1 --top-p 1.5",
        "generate base --prompt a --system b",
        "generate base --prompt a --chat",
        "bench base --prompt-tokens 200 --new-tokens 100",
        "bench base --samples 0",
        "bench",
    ];
    assert_snapshot!(show(&desk, &lines));
}

#[test]
fn bad_models() {
    let desk = desk();
    for name in [
        "none", "mamba", "heads", "missing", "wide", "packed", "nan", "tokens", "bare", "types",
        "braces", "torn", "blank",
    ] {
        copy(&desk.path("base"), &desk.path(name));
    }
    fs::remove_file(desk.path("none/config.json")).unwrap();
    fs::remove_file(desk.path("bare/tokenizer.json")).unwrap();
    configure(&desk, "mamba", "model_type", "mamba".into());
    configure(&desk, "heads", "n_head", 7.into());
    configure(&desk, "missing", "n_layer", 99.into());
    configure(&desk, "wide", "n_embd", 256.into());
    configure(
        &desk,
        "packed",
        "quantization_config",
        serde_json::json!({"quant_method": "gptq"}),
    );
    desk.put("tokens/tokenizer.json", b"{}");
    desk.put("braces/config.json", b"{\"model_type\": ");
    let weights = fs::read(desk.path("torn/model.safetensors")).unwrap();
    desk.put("torn/model.safetensors", &weights[..weights.len() / 2]);
    desk.put("blank/model.safetensors", b"");
    change_header(&desk, "types", |header| {
        header["transformer.wte.weight"]["dtype"] = "I16".into();
    });
    let weights = desk.path("nan/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let at = bytes.len() - 2;
    bytes[at..].copy_from_slice(&[0xc0, 0x7f]);
    fs::write(weights, bytes).unwrap();
    let lines = [
        "none",
        "mamba",
        "heads",
        "missing",
        "wide",
        "packed",
        "nan",
        "tokens",
        "bare",
        "types",
        "braces",
        "torn",
        "blank",
        "text",
        "./nowhere",
    ]
    .map(|model| format!("generate {model} --prompt a"));
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.push("generate nan --prompt a --json");
    assert_snapshot!(show(&desk, &lines));
}

#[test]
fn a_token_that_the_model_does_not_know_is_named() {
    let desk = desk();
    let path = desk.path("llama/tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut added = tokenizer["added_tokens"][0].clone();
    added["id"] = 5000.into();
    added["content"] = "<|new|>".into();
    tokenizer["added_tokens"]
        .as_array_mut()
        .unwrap()
        .push(added);
    fs::write(path, tokenizer.to_string()).unwrap();
    desk.put("first.txt", b"<|new|>a");
    desk.put("last.txt", b"a<|new|>");
    assert_snapshot!(show(
        &desk,
        &[
            "generate llama --prompt a<|new|>",
            "eval llama --text first.txt",
            "eval llama --text last.txt",
        ]
    ));
}

#[test]
fn a_prompt_that_is_longer_than_the_context_is_refused() {
    let desk = desk();
    let run = desk.run(&["generate", "base", "--prompt", &"the river ".repeat(200)]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    let tokens = run.stderr.strip_prefix("error: ").unwrap();
    let (tokens, rest) = tokens.split_once(' ').unwrap();
    assert!(tokens.parse::<usize>().unwrap() > 256);
    assert_eq!(
        rest,
        "tokens do not fit the model's context of 256\nhint: use at most 256 tokens\n"
    );
}

/// Weights that are finite, whose products are not: the layer is named.
#[test]
fn activations_that_overflow_name_their_layer() {
    let desk = desk();
    let weights = desk.path("base/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for word in bytes[8 + header..].chunks_exact_mut(2) {
        word.copy_from_slice(&0x7f00_u16.to_le_bytes()); // 1.7e38 in bf16
    }
    fs::write(weights, bytes).unwrap();
    let run = desk.run(&["generate", "base", "--prompt", "a", "--weights", "f16"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("has values that F16 does not hold"));
    let run = desk.run(&["generate", "base", "--prompt", "a"]);
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr.contains("NaN or infinite after layer 0 of"),
        "{}",
        run.stderr
    );
}

/// A head beside the embedding, though the configuration ties them; its logits overflow.
#[test]
fn logits_that_overflow_name_the_head() {
    let desk = desk();
    let path = desk.path("llama/model.safetensors");
    let data = fs::read(&path).unwrap();
    let start = 8 + u64::from_le_bytes(data[..8].try_into().unwrap()) as usize;
    let begin = data.len() - start;
    let head = 0x7f7f_u16.to_le_bytes().repeat(1024 * 128); // 3.4e38 in bf16
    let end = begin + head.len();
    fs::write(&path, [data, head].concat()).unwrap();
    change_header(&desk, "llama", |header| {
        header["lm_head.weight"] = serde_json::json!({
            "dtype": "BF16", "shape": [1024, 128], "data_offsets": [begin, end]});
    });
    let lines = [
        "generate llama --prompt a",
        "eval llama --text text/wikitext2_slice.txt --max-tokens 20",
        "eval llama --text text/wikitext2_slice.txt --max-tokens 20 --against base",
    ];
    assert_snapshot!(show(&desk, &lines));
}
