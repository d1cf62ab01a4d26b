//! Perplexities are those that transformers' logits give, by every protocol.
//!
//! `conformance/engine_golden.py` made the file, and checks it afresh.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use serde_json::Value;
use sparse_checkpoint::Checkpoint;
use sparse_engine::{Model, ModelConfig, Plain, Tokenizer};
use sparse_eval::{Plan, Reading, Silent, Spec, compare, compare_all, perplexity, read};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn load(dir: &Path) -> (Model, Tokenizer) {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let config = ModelConfig::read(&checkpoint).unwrap();
    let model = Model::load(config, &Plain::open(&checkpoint).unwrap(), 2, &|_, _| ()).unwrap();
    (model, Tokenizer::open(&checkpoint).unwrap())
}

/// The tokenizer of a copy of the checkpoint that says to begin texts with a token.
fn adding_bos(dir: &Path) -> Tokenizer {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let path = copy.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["add_bos_token"] = true.into();
    std::fs::write(&path, config.to_string()).unwrap();
    Tokenizer::open(&Checkpoint::open(copy.path()).unwrap()).unwrap()
}

fn models() -> [(&'static str, PathBuf); 2] {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    [
        ("base", crates.join("../examples/base")),
        (
            "tiny-llama",
            crates.join("sparse-engine/tests/golden/tiny-llama"),
        ),
    ]
}

fn near(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (found / expected - 1.0).abs() < 1e-4,
        "{what}: {found}, not {expected}"
    );
}

#[test]
fn perplexities_are_those_of_transformers_by_every_protocol() {
    let text = std::fs::read_to_string(tests().join("golden/perplexity.json")).unwrap();
    let golden: Value = serde_json::from_str(&text).unwrap();
    for (name, dir) in models() {
        let (model, tokenizer) = load(&dir);
        let adding_bos = adding_bos(&dir);
        let rows = golden["models"][name].as_array().unwrap();
        assert!(rows.len() >= 20);
        assert!(rows.iter().any(|row| row["add_bos"] == true));
        for row in rows {
            let size = |key: &str| Some(row[key].as_u64().unwrap() as usize);
            let spec = Spec {
                protocol: row["protocol"].as_str().unwrap().parse().unwrap(),
                context: size("context"),
                stride: size("stride"),
                max_tokens: None,
            };
            let what = format!("{name} {spec:?} {}", row["text"]);
            let documents = read(
                &tests().join("data").join(row["text"].as_str().unwrap()),
                Reading::default(),
            );
            let limit = model.config().context;
            let tokenizer = if row["add_bos"] == true {
                &adding_bos
            } else {
                &tokenizer
            };
            let plan = Plan::new(&spec, &documents.unwrap(), tokenizer, limit).unwrap();
            let found = perplexity(&model, &plan, &Silent).unwrap();
            assert_eq!(Some(found.tokens), size("tokens"), "{what}");
            assert_eq!(Some(found.scored_tokens), size("scored_tokens"), "{what}");
            near(found.nll, &row["nll"], &what);
            near(found.perplexity, &row["perplexity"], &what);
            if spec.protocol.name() == "lm-eval" {
                let (words, bits) = found.words.unwrap();
                assert_eq!(Some(words), size("words"), "{what}");
                near(bits, &row["bits_per_byte"], &what);
            } else if !row["perplexity_stderr"].is_null() {
                let error = found.perplexity_stderr.unwrap();
                near(error, &row["perplexity_stderr"], &what);
            }
        }
    }
}

#[test]
fn tables_hold_the_same_documents_whatever_their_format() {
    let read = |name: &str| read(&tests().join("data").join(name), Reading::default()).unwrap();
    let rows = read("wikitext2_slice.jsonl");
    assert_eq!(rows.len(), 63);
    assert_eq!(rows, read("wikitext2_slice.parquet"));
}

#[test]
fn a_model_does_not_diverge_from_itself() {
    let (model, tokenizer) = load(&models()[0].1);
    let documents = read(
        &tests().join("data/wikitext2_slice.txt"),
        Reading::default(),
    )
    .unwrap();
    let spec = Spec {
        protocol: "hf-stride".parse().unwrap(),
        context: Some(100),
        stride: Some(60),
        max_tokens: Some(700),
    };
    let plan = Plan::new(&spec, &documents, &tokenizer, 256).unwrap();
    let alone = perplexity(&model, &plan, &Silent).unwrap();
    let found = compare(&model, &model, &plan, &Silent).unwrap();
    assert_eq!(found.candidate, found.base);
    assert!((found.base.perplexity / alone.perplexity - 1.0).abs() < 1e-6);
    assert_eq!((found.kl_mean, found.top1_agreement), (0.0, 1.0));
    assert_eq!(found.ppl_delta_pct(), 0.0);
}

#[test]
fn candidates_together_are_compared_as_each_alone() {
    let all: Vec<_> = models().into_iter().map(|(_, path)| load(&path)).collect();
    let tokenizer = &all[0].1;
    let documents = ["What is compared together is what is compared alone. ".repeat(12)];
    let spec = Spec {
        protocol: "hf-stride".parse().unwrap(),
        context: Some(64),
        stride: Some(40),
        max_tokens: Some(200),
    };
    let plan = Plan::new(&spec, &documents, tokenizer, 256).unwrap();
    let base = &all[0].0;
    let of_its_size = |model: &&Model| model.config().vocabulary == base.config().vocabulary;
    let candidates: Vec<&Model> = all
        .iter()
        .map(|(model, _)| model)
        .filter(of_its_size)
        .collect();
    assert!(candidates.len() > 1);
    let together = compare_all(base, &candidates, &plan, &Silent).unwrap();
    for (candidate, found) in candidates.iter().zip(&together) {
        assert_eq!(*found, compare(base, candidate, &plan, &Silent).unwrap());
    }
    assert!(together[1].kl_mean > 0.0);
}
