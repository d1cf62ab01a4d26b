//! `sparse quantize` from the outside: what it writes, what it says, what it refuses.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write;

use common::Desk;
use insta::assert_snapshot;
use serde_json::json;

fn refused(desk: &Desk, args: &[&str]) -> (String, String) {
    let run = desk.run(&[args, &["--json"]].concat());
    assert_eq!(run.code, Some(2), "{args:?}: {}{}", run.stdout, run.stderr);
    let json = run.json();
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    (text("error"), text("hint"))
}

fn show(lines: &[&str]) -> String {
    let desk = Desk::new();
    let runs: Vec<String> = lines.iter().map(|line| desk.show(line)).collect();
    runs.join("\n")
}

#[test]
fn help() {
    assert_snapshot!(show(&["quantize --help", "dequantize --help"]));
}

#[test]
fn lists_and_estimates() {
    assert_snapshot!(show(&["quantize --list", "quantize base --estimate"]));
}

#[test]
fn what_is_written_and_what_is_said_of_it() {
    assert_snapshot!(show(&[
        "quantize base --preset rtn_int4 -o out",
        "quantize base --preset gptq_quality --samples 4 --group-size 256 -o ragged",
        "quantize base --preset gguf_q4_k_m -o gguf",
        "dequantize out -o plain",
    ]));
}

#[test]
fn mistakes() {
    assert_snapshot!(show(&[
        "quantize base --preset fp16",
        "quantize base -o out",
        "quantize base --preset bnb_nf3 -o out",
        "quantize base --preset bnb_nf4 --format gguf -o out",
        "quantize base --preset awq_quality -o out",
        "quantize ./nowhere --preset fp16 -o out",
        "quantize base --preset bnb_nf4 -o out",
        "quantize base --preset bnb_nf4 -o out",
        "quantize out --preset bnb_nf4 -o other",
        "dequantize base -o plain",
    ]));
}

#[test]
fn every_preset_is_as_large_as_estimated_and_leaves_nothing_else() {
    let desk = Desk::new();
    let listed = desk.run(&["quantize", "--list", "--json"]).json();
    let guessed = desk
        .run(&["quantize", "base", "--estimate", "--json"])
        .json();
    assert!(guessed["parameters"].as_u64().unwrap() > 100_000);
    let mut tried = 0;
    for preset in listed["presets"].as_array().unwrap() {
        let name = preset["preset"].as_str().unwrap();
        let guess = guessed["presets"]
            .as_array()
            .unwrap()
            .iter()
            .find(|g| g["preset"] == name);
        // Presets that no client could load for GPT-2 are not among the estimates, but are named.
        let Some(guess) = guess else {
            let refused = guessed["refused"].as_array().unwrap();
            assert!(refused.iter().any(|g| g["preset"] == name), "{name}");
            continue;
        };
        let args = [
            "quantize",
            "base",
            "--preset",
            name,
            "--format",
            guess["format"].as_str().unwrap(),
            "-o",
            name,
            "--samples",
            "4",
            "--json",
        ];
        let run = desk.run(&args);
        assert_eq!(run.code, Some(0), "{name}: {}{}", run.stdout, run.stderr);
        let made = run.json();
        let bytes: u64 = fs::read_dir(desk.path(name))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert_eq!(made["quantized_bytes"].as_u64(), Some(bytes), "{name}");
        assert_eq!(guess["quantized_bytes"].as_u64(), Some(bytes), "{name}");
        assert!(desk.path(name).join("tokenizer.json").is_file());
        tried += 1;
    }
    assert!(tried >= 17, "{tried} presets");
    let hidden: Vec<String> = desk
        .list()
        .into_iter()
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}

#[test]
fn what_is_quantized_comes_back_and_the_same_bytes_come_out_again() {
    let desk = Desk::new();
    for out in ["one", "two"] {
        let args = [
            "quantize",
            "base",
            "--preset",
            "gptq_quality",
            "-o",
            out,
            "--samples",
            "4",
        ];
        assert_eq!(desk.run(&args).code, Some(0));
    }
    assert!(desk.same("one", "two"), "the same seed, the same file");
    let run = desk.run(&["dequantize", "one", "-o", "plain", "--json"]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    assert!(run.json()["layers"].as_u64().unwrap() > 0);
}

#[test]
fn wrong_wishes_are_refused_with_what_to_do() {
    let desk = Desk::new();
    let quantize = |preset| ["quantize", "base", "--preset", preset, "-o", "out"];
    let (error, hint) = refused(&desk, &quantize("bnb-nf4"));
    assert!(
        error.contains("bnb_nf4") && hint.contains("--list"),
        "{error} {hint}"
    );

    let (error, hint) = refused(&desk, &quantize("awq_quality"));
    assert!(
        error.contains("Conv1D") && hint.contains("gptq_v2"),
        "{error} {hint}"
    );

    let (error, _) = refused(
        &desk,
        &[&quantize("bnb_nf4")[..], &["--format", "gguf"]].concat(),
    );
    assert!(error.contains("bitsandbytes"), "{error}");

    desk.put("short.txt", b"To be, or not to be");
    let short = [
        &quantize("gptq_quality")[..],
        &["--calibration", "short.txt"],
    ]
    .concat();
    let (error, hint) = refused(&desk, &short);
    assert!(
        error.contains("tokens") && hint.contains("longer"),
        "{error} {hint}"
    );

    assert_eq!(desk.run(&quantize("bnb_nf4")).code, Some(0));
    let (error, _) = refused(&desk, &quantize("bnb_nf4"));
    assert!(error.contains("exists already"), "{error}");
    let again = ["quantize", "out", "--preset", "bnb_int8", "-o", "other"];
    let (error, _) = refused(&desk, &again);
    assert!(error.contains("quantized already"), "{error}");
    assert!(!desk.path("other").exists());
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    let desk = Desk::new();
    let weights = desk.path("base/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&[0xc0, 0x7f]); // bf16 NaN
    fs::write(&weights, bytes).unwrap();
    for preset in ["bnb_nf4", "fp16", "gguf_q8_0", "gptq_quality"] {
        let (error, _) = refused(
            &desk,
            &["quantize", "base", "--preset", preset, "-o", "out"],
        );
        assert!(error.contains("NaN") && error.contains("tensor"), "{error}");
        assert!(!desk.path("out").exists());
    }
}

#[test]
fn every_format_runs_as_it_is_stored() {
    let desk = Desk::new();
    let perplexity = |model: &str, activations: &str| {
        let text = desk.path("text.txt");
        let args = [
            "eval",
            model,
            "--text",
            text.to_str().unwrap(),
            "--max-tokens",
            "600",
        ];
        let run = desk.run(&[&args[..], &["--activations", activations, "--json"]].concat());
        assert_eq!(run.code, Some(0), "{model}: {}{}", run.stdout, run.stderr);
        run.json()["perplexity"].as_f64().unwrap()
    };
    desk.put(
        "text.txt",
        include_bytes!("../../../examples/shakespeare.txt"),
    );
    let cases = [
        ("rtn_int4", &["--group-size", "32"][..]),
        (
            "rtn_int4",
            &["--group-size", "-1", "--zero-points", "--format", "gptq"],
        ),
        (
            "rtn_int4",
            &["--bits", "3", "--group-size", "64", "--format", "gptq_v2"],
        ),
        (
            "rtn_int4",
            &["--bits", "2", "--group-size", "16", "--zero-points"],
        ),
        ("rtn_int8", &[]),
        (
            "gptq_quality",
            &["--group-size", "32", "--act-order", "--samples", "4"],
        ),
        ("bnb_int8", &[]),
        ("bnb_nf4", &[]),
        ("bnb_nf4_plain", &[]),
        ("hqq_4bit", &[]),
        ("hqq_3bit", &["--group-size", "48"]),
        ("hqq_4bit", &["--bits", "8"]),
        ("gguf_q4_0", &[]),
        ("gguf_q8_0", &[]),
        ("gguf_q4_k_m", &[]),
        ("gguf_q6_k", &[]),
    ];
    for (at, (name, options)) in cases.into_iter().enumerate() {
        let (out, plain) = (format!("{name}-{at}"), format!("{name}-{at}-plain"));
        let args = ["quantize", "base", "--preset", name, "-o", &out];
        let run = desk.run(&[&args[..], options].concat());
        assert_eq!(run.code, Some(0), "{name} {options:?}: {}", run.stderr);
        assert_eq!(desk.run(&["dequantize", &out, "-o", &plain]).code, Some(0));
        let expected = perplexity(&plain, "f32");
        let exact = perplexity(&out, "f32") / expected - 1.0;
        // hqq's weights are rounded to half precision on the way to a plain checkpoint.
        assert!(exact.abs() < 2e-4, "{name} {options:?}: off by {exact}");
        let rounded = perplexity(&out, "int8") / expected - 1.0;
        assert!(rounded.abs() < 0.01, "{name} {options:?}: off by {rounded}");
    }
}

/// What somebody else quantized, and did not say so in the configuration.
#[test]
fn packed_layers_are_seen_whatever_the_configuration_says() {
    let desk = Desk::new();
    for preset in ["bnb_nf4", "bnb_int8", "gptq_quality", "hqq_4bit"] {
        let args = ["quantize", "base", "--preset", preset, "--force"];
        assert_eq!(
            desk.run(&[&args[..], &["--samples", "2", "-o", "out"]].concat())
                .code,
            Some(0)
        );
        let path = desk.path("out/config.json");
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config
            .as_object_mut()
            .unwrap()
            .remove("quantization_config");
        fs::write(&path, config.to_string()).unwrap();
        let again = ["quantize", "out", "--preset", "fp16", "-o", "other"];
        let (error, _) = refused(&desk, &again);
        assert!(error.contains("quantized already"), "{preset}: {error}");
    }
}

/// A norm of zeros puts nothing into the layer behind it: there is no factor to round by.
#[test]
fn a_layer_that_sees_nothing_is_rounded_to_nearest_and_named() {
    let desk = Desk::new();
    let path = desk.path("base/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    for part in ["weight", "bias"] {
        let place = &header[format!("transformer.h.1.ln_1.{part}")]["data_offsets"];
        let at = |end: usize| data + place[end].as_u64().unwrap() as usize;
        bytes[at(0)..at(1)].fill(0);
    }
    fs::write(path, bytes).unwrap();
    let args = [
        "quantize",
        "base",
        "--preset",
        "gptq_quality",
        "--samples",
        "2",
    ];
    let run = desk.run(&[&args[..], &["-o", "out", "--json"]].concat());
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let notes = run.json()["notes"].to_string();
    assert!(notes.contains("transformer.h.1.attn.c_attn"), "{notes}");
    assert!(notes.contains("rounded to nearest"), "{notes}");
    assert!(!notes.contains("transformer.h.0."), "{notes}");
    assert_eq!(
        desk.run(&["dequantize", "out", "-o", "plain"]).code,
        Some(0)
    );
}

#[test]
fn what_is_not_done_is_said() {
    let lines = [
        // Group sizes that the client does not have.
        "quantize base --preset rtn_int4 --group-size 48 -o groups",
        "quantize base --preset rtn_int4 --group-size 48 --estimate",
        // A text that no type looks at, and a file that is not cut.
        "quantize base --preset gguf_q8_0 --calibration base/config.json --max-shard-bytes 9 -o gguf",
        "quantize base --preset gguf_q8_0 --max-shard-bytes 0 -o other",
    ];
    assert_snapshot!(show(&lines));
}

#[test]
fn options_that_a_method_does_not_have_are_refused() {
    let desk = Desk::new();
    for (preset, option, value, expected) in [
        ("bnb_nf4", "--bits", "3", "4 with this preset"),
        ("gptq_quality", "--bits", "5", "2, 3, 4 or 8"),
        ("gguf_q4_0", "--group-size", "64", "32 with this preset"),
        ("gptq_quality", "--group-size", "0", "a number of weights"),
        ("rtn_int4", "--group-size", "20", "a multiple of 8"),
    ] {
        let args = [
            "quantize", "base", "--preset", preset, "-o", "out", option, value,
        ];
        let run = desk.run(&args);
        assert_eq!(run.code, Some(2), "{preset} {option} {value}");
        assert!(run.stderr.contains(expected), "{}", run.stderr);
        assert!(!desk.path("out").exists());
    }
    let three = ["--bits", "3", "--format", "awq"];
    let args = ["quantize", "base", "--preset", "rtn_int4", "-o", "out"];
    let (error, hint) = refused(&desk, &[&args[..], &three].concat());
    assert!(
        error.contains("awq") && hint.contains("gptq"),
        "{error} {hint}"
    );
}

#[test]
fn shards_are_as_large_as_estimated_and_read_back() {
    let desk = Desk::new();
    let small = ["--preset", "rtn_int4", "--max-shard-bytes", "100000"];
    let guess = desk.run(&[&["quantize", "base", "--estimate", "--json"], &small[..]].concat());
    let run = desk.run(&[&["quantize", "base", "-o", "out", "--json"], &small[..]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(
        guess.json()["presets"][0]["quantized_bytes"],
        run.json()["quantized_bytes"]
    );
    assert!(desk.path("out/model.safetensors.index.json").is_file());
    let shards = fs::read_dir(desk.path("out")).unwrap();
    let names = shards.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.filter(|name| name.contains("-of-000")).count() > 2);
    let args = ["generate", "out", "--prompt", "To be", "--max-tokens", "4"];
    assert_eq!(desk.run(&args).code, Some(0));
    let bench = ["bench", "out", "--samples", "1", "--warmup", "0"];
    assert_eq!(desk.run(&bench).code, Some(0));
}

#[test]
fn what_is_not_as_asked_for_is_said() {
    let desk = Desk::new();
    desk.put("text.txt", b"to be or not to be");
    let notes = |args: &[&str], out: &str| {
        let run = desk.run(&[&["quantize", "base", "-o", out, "--json"], args].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let json = run.json();
        (json["notes"].to_string(), json["group_size"].as_u64())
    };
    let (said, size) = notes(&["--preset", "hqq_4bit", "--group-size", "104"], "hqq");
    assert!(said.contains("instead of 104"), "{said}");
    let config = fs::read_to_string(desk.path("hqq/config.json")).unwrap();
    let stored = format!("\"group_size\": {}", size.unwrap());
    assert!(size != Some(104) && config.contains(&stored), "{config}");
    let (said, _) = notes(&["--preset", "bnb_nf4", "--calibration", "text.txt"], "nf4");
    assert!(said.contains("looks at no text"), "{said}");
}

#[test]
fn gguf_files_are_quantized_already() {
    let desk = Desk::new();
    let made = ["quantize", "base", "--preset", "gguf_q8_0", "-o", "gguf"];
    assert_eq!(desk.run(&made).code, Some(0));
    for args in [
        &["quantize", "gguf", "--preset", "bnb_nf4", "-o", "out"][..],
        &["quantize", "gguf", "--estimate"],
    ] {
        let (error, _) = refused(&desk, args);
        assert!(error.contains("quantized already (gguf)"), "{error}");
    }
}

/// gpt2 as OpenAI's repository has it, without its weights: names without a prefix, the buffers of
/// attention masks, and zeros that take no room.
fn headers_of_gpt2(desk: &Desk) {
    let mut tensors = vec![
        ("wte.weight".to_owned(), vec![50_257, 768]),
        ("wpe.weight".to_owned(), vec![1024, 768]),
        ("ln_f.weight".to_owned(), vec![768]),
        ("ln_f.bias".to_owned(), vec![768]),
    ];
    for block in 0..12 {
        let mut add = |name: &str, shape: &[u64]| {
            tensors.push((format!("h.{block}.{name}"), shape.to_vec()));
        };
        add("attn.bias", &[1, 1, 1024, 1024]);
        for norm in ["ln_1", "ln_2"] {
            add(&format!("{norm}.weight"), &[768]);
            add(&format!("{norm}.bias"), &[768]);
        }
        for (layer, inputs, outputs) in [
            ("attn.c_attn", 768, 2304),
            ("attn.c_proj", 768, 768),
            ("mlp.c_fc", 768, 3072),
            ("mlp.c_proj", 3072, 768),
        ] {
            add(&format!("{layer}.weight"), &[inputs, outputs]);
            add(&format!("{layer}.bias"), &[outputs]);
        }
    }
    let mut at = 0;
    let mut entries = serde_json::Map::new();
    for (name, shape) in tensors {
        let end = at + 4 * shape.iter().product::<u64>();
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, end] });
        entries.insert(name, entry);
        at = end;
    }
    let header = serde_json::Value::from(entries).to_string();
    let file = fs::File::create(desk.path("gpt2/model.safetensors")).unwrap();
    (&file)
        .write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    (&file).write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + at).unwrap();
}

#[test]
fn gpt2_has_as_many_weights_as_its_paper_says() {
    let desk = Desk::new();
    fs::create_dir(desk.path("gpt2")).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(desk.path("base").join(name), desk.path("gpt2").join(name)).unwrap();
    }
    let config = json!({
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50_257,
        "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "n_ctx": 1024,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    });
    fs::write(desk.path("gpt2/config.json"), config.to_string()).unwrap();
    headers_of_gpt2(&desk);
    let run = desk.run(&["quantize", "gpt2", "--estimate", "--json"]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let guess = run.json();
    assert_eq!(guess["parameters"], 124_439_808);
    let bytes = |name: &str| {
        let rows = guess["presets"].as_array().unwrap();
        let row = rows.iter().find(|row| row["preset"] == name).unwrap();
        row["quantized_bytes"].as_u64().unwrap()
    };
    let half = bytes("fp16") as f64 / (2.0 * 124_439_808.0);
    assert!((1.0..1.02).contains(&half), "{half}");
    assert!(bytes("gguf_q4_0") < bytes("fp16") * 2 / 5);
}
