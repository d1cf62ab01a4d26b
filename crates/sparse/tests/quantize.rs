//! `sparse quantize` from the outside: what it writes, what it says, what it refuses.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::Desk;

fn refused(desk: &Desk, args: &[&str]) -> (String, String) {
    let run = desk.run(&[args, &["--json"]].concat());
    assert_eq!(run.code, Some(2), "{args:?}: {}{}", run.stdout, run.stderr);
    let json = run.json();
    let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
    (text("error"), text("hint"))
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
        // Presets that no client could load for GPT-2 are not among the estimates.
        let Some(guess) = guess else {
            continue;
        };
        let args = [
            "quantize",
            "base",
            "--preset",
            name,
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
    assert!(tried >= 12, "{tried} presets");
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
    for preset in ["bnb_nf4", "fp16", "gguf_q8_0"] {
        let (error, _) = refused(
            &desk,
            &["quantize", "base", "--preset", preset, "-o", "out"],
        );
        assert!(error.contains("NaN") && error.contains("tensor"), "{error}");
        assert!(!desk.path("out").exists());
    }
}
