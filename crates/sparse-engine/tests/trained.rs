//! Trained checkpoints: logits, two hundred tokens of greedy text, tokenizers and chat templates
//! are those of transformers.
#![allow(clippy::unwrap_used)]

mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sparse_checkpoint::{Checkpoint, RelPath, Shard};
use sparse_engine::{ChatTemplate, Message, Model, Sampling, TextStream, Tokenizer};
use support::{floats, golden, largest_difference, load, tokens};

fn models() -> [(&'static str, PathBuf); 2] {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    [
        ("base", examples.join("base")),
        ("tiny-llama", golden().join("tiny-llama")),
    ]
}

fn json(path: &str) -> Value {
    let text = std::fs::read_to_string(golden().join(path)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn tokenizer(dir: &Path) -> Tokenizer {
    Tokenizer::open(&Checkpoint::open(dir).unwrap()).unwrap()
}

fn expected(name: &str) -> Shard {
    let path = RelPath::parse(&format!("{name}.safetensors")).unwrap();
    Shard::open(&golden().join("trained"), path).unwrap()
}

fn greedy(model: &Model, prompt: &[u32], limit: usize) -> Vec<u32> {
    let mut go_on = |_| ControlFlow::Continue(());
    let made = model.generate(prompt, limit, &[], Sampling::greedy(), &mut go_on);
    made.unwrap().tokens
}

#[test]
fn logits_of_a_trained_model_are_those_of_transformers() {
    for (name, dir) in models() {
        let (model, golden) = (load(&dir), expected(name));
        let hidden = model.run(&[&tokens(&golden, "input_ids")], None).unwrap();
        let expected = floats(&golden, "logits");
        let vocabulary = model.config().vocabulary;
        let positions = tokens(&golden, "positions");
        for (position, expected) in positions.iter().zip(expected.chunks(vocabulary)) {
            let row = *position as usize;
            let logits = model.logits(&hidden, row..row + 1).unwrap();
            let difference = largest_difference(&logits, expected);
            assert!(difference < 1e-3, "{name}, token {row}: {difference}");
        }
    }
}

#[test]
fn two_hundred_tokens_of_greedy_text_are_those_of_transformers() {
    let texts = json("trained/greedy.json");
    for (name, dir) in models() {
        let (model, tokenizer, golden) = (load(&dir), tokenizer(&dir), expected(name));
        let prompt = tokenizer
            .encode_prompt(texts[name]["prompt"].as_str().unwrap())
            .unwrap();
        assert_eq!(prompt, tokens(&golden, "prompt_ids"));
        let made = greedy(&model, &prompt, 200);
        assert_eq!(made, tokens(&golden, "greedy"), "{name}");
        assert_eq!(
            tokenizer.decode(&made).unwrap(),
            texts[name]["text"],
            "{name}"
        );

        let mut stream = TextStream::new(&tokenizer);
        let mut streamed = String::new();
        for token in made {
            streamed += &stream.push(token).unwrap();
        }
        streamed += &stream.finish().unwrap();
        assert_eq!(streamed, texts[name]["text"], "{name}");
    }
}

#[test]
fn tokens_are_those_of_transformers() {
    let cases = json("tokenizers.json");
    for (name, dir) in models() {
        let tokenizer = tokenizer(&dir);
        let cases = cases[name].as_array().unwrap();
        assert!(cases.len() >= 10);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids =
                |key: &str| -> Vec<u32> { serde_json::from_value(case[key].clone()).unwrap() };
            let found = tokenizer.encode(text).unwrap();
            assert_eq!(found, ids("ids"), "{text:?}");
            let with_special = tokenizer.encode_prompt(text).unwrap();
            assert_eq!(with_special, ids("ids_with_special_tokens"), "{text:?}");
            let decoded = tokenizer.decode(&found).unwrap();
            assert_eq!(decoded, case["decoded_without_special_tokens"], "{text:?}");

            let mut stream = TextStream::new(&tokenizer);
            let pieces = found.iter().map(|&token| stream.push(token).unwrap());
            let mut streamed = pieces.collect::<String>();
            streamed += &stream.finish().unwrap();
            assert_eq!(streamed, decoded, "{text:?}, token by token");
        }
    }
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let templates = json("chat.json");
    let templates = templates.as_array().unwrap();
    assert!(templates.len() >= 4);
    for one in templates {
        let template = ChatTemplate::new(one["template"].as_str().unwrap(), one).unwrap();
        for case in one["cases"].as_array().unwrap() {
            let messages = case["messages"].as_array().unwrap().iter();
            let messages: Vec<Message> = messages
                .map(|message| Message {
                    role: message["role"].as_str().unwrap().to_owned(),
                    content: message["content"].as_str().unwrap().to_owned(),
                })
                .collect();
            let answer = case["add_generation_prompt"].as_bool().unwrap();
            let found = template.render(&messages, answer);
            if let Some(expected) = case["text"].as_str() {
                assert_eq!(found.unwrap(), expected, "{}", one["name"]);
            } else {
                let error = found.unwrap_err().to_string();
                let refusal = case["error"].as_str().unwrap();
                assert!(error.contains(refusal), "{error}, not {refusal}");
            }
        }
    }
}
