//! What the command prints and how it exits, failures included.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Desk, copy};
use insta::assert_snapshot;

fn show(desk: &Desk, lines: &[&str]) -> String {
    let runs: Vec<String> = lines.iter().map(|line| desk.show(line)).collect();
    runs.join("\n")
}

/// Each line, and the same with `--json`.
fn both(desk: &Desk, lines: &[&str]) -> String {
    let json: Vec<String> = lines.iter().map(|line| format!("{line} --json")).collect();
    let pairs: Vec<&str> = lines
        .iter()
        .zip(&json)
        .flat_map(|(line, json)| [*line, json.as_str()])
        .collect();
    show(desk, &pairs)
}

#[test]
fn usage() {
    let desk = Desk::new();
    assert_snapshot!(show(&desk, &["", "delta", "--version"]));
}

#[test]
fn help() {
    let desk = Desk::new();
    let lines = [
        "--help",
        "delta --help",
        "delta compress --help",
        "delta reconstruct --help",
        "delta verify --help",
        "delta info --help",
        "delta estimate --help",
    ];
    assert_snapshot!(show(&desk, &lines));
}

#[test]
fn wrong_arguments() {
    let desk = Desk::new();
    let lines = [
        "delta compress base fine -o out --fast",
        "delta compress base fine",
        "delta comprss base fine -o out",
        "delta verify",
        "delta verify delta --threads 0",
    ];
    assert_snapshot!(both(&desk, &lines));
}

#[test]
fn wrong_paths() {
    let desk = Desk::new();
    desk.put("notes/notes.txt", b"no model here");
    desk.put("torch/pytorch_model.bin", b"a pickle");
    desk.put(
        "pointer/model.safetensors",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    );
    let lines = [
        "delta compress ./nowhere fine -o out",
        "delta compress base ./nowhere -o out",
        "delta compress owner/name fine -o out",
        "delta compress notes fine -o out",
        "delta compress torch fine -o out",
        "delta compress pointer fine -o out",
        "delta compress base/config.json fine -o out",
        "delta compress base fine -o fine/out",
        "delta compress base fine -o base --force",
        "delta verify nowhere",
        "delta info base",
        "delta info base/config.json",
        "delta reconstruct base fine -o out",
        "delta estimate base ./nowhere",
    ];
    assert_snapshot!(both(&desk, &lines));
    assert_eq!(desk.list(), ["base", "fine", "notes", "pointer", "torch"]);
}

#[test]
fn a_delta_and_back() {
    let desk = Desk::new();
    let lines = [
        "delta estimate base fine",
        "delta compress base fine -o delta --force",
        "delta info delta",
        "delta verify delta",
        "delta verify delta --base base",
        "delta reconstruct base delta -o back --force",
        "delta reconstruct base delta -o one.safetensors --force --tensor transformer.ln_f.weight",
        "delta reconstruct base delta -o other.safetensors --tensor ln_f.weight",
    ];
    assert_snapshot!(both(&desk, &lines));
    assert!(desk.same("fine", "back"));
    assert_eq!(
        desk.list(),
        ["back", "base", "delta", "fine", "one.safetensors"]
    );
}

#[test]
fn outputs_that_exist() {
    let desk = Desk::new();
    desk.put("out/mine", b"precious");
    let lines = ["delta compress base fine -o out"];
    let mut text = both(&desk, &lines);
    assert!(desk.path("out/mine").exists());
    text.push_str(&show(
        &desk,
        &["delta compress base fine -o out --force --quiet"],
    ));
    assert!(!desk.path("out/mine").exists());
    desk.put("back/mine", b"precious");
    text.push_str(&both(&desk, &["delta reconstruct base out -o back"]));
    assert!(desk.path("back/mine").exists());
    desk.put("one", b"precious");
    text.push_str(&both(
        &desk,
        &["delta reconstruct base out -o one --tensor transformer.ln_f.bias"],
    ));
    assert_snapshot!(text);
    assert_eq!(desk.list(), ["back", "base", "fine", "one", "out"]);
}

#[test]
fn wrong_bases_and_damaged_deltas() {
    let desk = Desk::new();
    assert_eq!(
        desk.run(&["delta", "compress", "base", "fine", "-o", "delta"])
            .code,
        Some(0)
    );
    let whole = std::fs::read(desk.path("delta/delta.safetensors")).unwrap();
    let half = whole.len() / 2;
    let mut flipped = whole.clone();
    flipped[300] ^= 4; // of the first tensor
    desk.put("flipped/delta.safetensors", &flipped);
    desk.put("cut/delta.safetensors", &whole[..half]);
    let mut flipped = whole.clone();
    flipped[whole.len() - 50] ^= 4;
    desk.put("index/delta.safetensors", &flipped);
    copy(&desk.path("base"), &desk.path("renamed"));
    let base = std::fs::read(desk.path("base/model.safetensors")).unwrap();
    let mut flipped = base.clone();
    flipped[base.len() - 1000] ^= 1;
    desk.put("renamed/model.safetensors", &flipped);
    let lines = [
        "delta verify flipped",
        "delta verify cut",
        "delta verify delta --base renamed",
        "delta reconstruct fine delta -o out",
        "delta reconstruct renamed delta -o out",
        "delta reconstruct base cut -o out",
        "delta info cut",
    ];
    let text = both(&desk, &lines)
        .replace(&whole.len().to_string(), "[WHOLE]")
        .replace(&half.to_string(), "[HALF]");
    assert!(!desk.path("out").exists());
    // Where the damage lies within zstd's frame depends on its version: only that it is told.
    for line in [
        "verify index",
        "info index",
        "reconstruct base flipped -o out",
        "reconstruct base index -o out",
    ] {
        let args: Vec<&str> = ["delta"].into_iter().chain(line.split(' ')).collect();
        let run = desk.run(&args);
        let text = run.stdout + &run.stderr;
        assert_eq!(
            run.code,
            Some(if line.starts_with("verify") { 1 } else { 2 }),
            "{text}"
        );
        assert!(
            text.contains("damaged") || text.contains("not rebuilt exactly"),
            "{text}"
        );
    }
    assert!(!desk.path("out").exists());
    assert_snapshot!(text);
}

/// A safetensors file with this header text and data.
fn safetensors(text: &str, data: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes(), data].concat()
}

#[test]
fn broken_checkpoints() {
    let desk = Desk::new();
    let base = std::fs::read(desk.path("base/model.safetensors")).unwrap();
    desk.put("short/model.safetensors", &base[..base.len() - 10]);
    desk.put("tiny/model.safetensors", &base[..5]);
    desk.put("header/model.safetensors", &base[..500]);
    desk.put("huge/model.safetensors", &[0xff; 16]);
    let two = |b: &str| {
        format!(
            r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{b}}}}}"#
        )
    };
    desk.put(
        "overlap/model.safetensors",
        &safetensors(&two("[2,6]"), &[0; 8]),
    );
    desk.put(
        "outside/model.safetensors",
        &safetensors(&two("[4,5]"), &[0; 8]),
    );
    desk.put(
        "backwards/model.safetensors",
        &safetensors(&two("[8,4]"), &[0; 8]),
    );
    let fine = safetensors(&two("[4,8]"), &[0; 8]);
    for (folder, tensor, shard) in [
        ("shard", "a", "model-2.safetensors"),
        ("tensor", "c", "model-1.safetensors"),
    ] {
        desk.put(&format!("{folder}/model-1.safetensors"), &fine);
        let index =
            format!(r#"{{"weight_map":{{"b":"model-1.safetensors","{tensor}":"{shard}"}}}}"#);
        desk.put(
            &format!("{folder}/model.safetensors.index.json"),
            index.as_bytes(),
        );
    }
    desk.put("json/model.safetensors", &fine);
    desk.put("json/model.safetensors.index.json", b"{\"weight_map\":{");
    let lines = [
        "short",
        "tiny",
        "header",
        "huge",
        "overlap",
        "outside",
        "backwards",
        "shard",
        "tensor",
        "json",
    ]
    .map(|name| format!("delta compress base {name} -o out"));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_snapshot!(both(&desk, &lines));
    assert!(!desk.path("out").exists());
}
