//! A file is written, read, cut short and flipped.

use std::fs;
use std::path::Path;

use sparse_checkpoint::Checkpoint;
use sparse_engine::{Activations, Model, ModelConfig, Plain, Source, Tokenizer};

use super::*;
use crate::plan::{Plan, QuantSpec};
use crate::preset::{Format, Preset};

fn plain(file_type: FileType) -> Mixture {
    Mixture {
        file_type,
        weighted: false,
    }
}

/// The small GPT-2 that ships with the repository, as GGUF.
fn written(dir: &Path, preset: &str) -> std::path::PathBuf {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/base");
    let checkpoint = Checkpoint::open(&base).unwrap();
    let preset = Preset::named(preset).unwrap();
    let crate::preset::Variant::Ggml(file_type) = preset.variant else {
        panic!("{preset:?}");
    };
    let spec = QuantSpec {
        preset,
        format: Format::Gguf,
    };
    let plan = Plan::new(&checkpoint, &spec).unwrap();
    let gguf = plan.gguf(&checkpoint, plain(file_type)).unwrap();
    let path = dir.join(FILE);
    write(&gguf, &path, |_| None, |_| Ok(())).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().len(),
        gguf.file_bytes(),
        "as planned"
    );
    path
}

#[test]
fn threads_read_one_file_without_disturbing_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = GgufFile::open(&written(dir.path(), "gguf_q4_0")).unwrap();
    let read = |tensor: &GgufTensor| file.bytes(&tensor.name).unwrap().1;
    let expected: Vec<_> = file.tensors().iter().map(read).collect();
    std::thread::scope(|scope| {
        for shift in 0..4 {
            let (file, expected) = (&file, &expected);
            scope.spawn(move || {
                for turn in 0..200 {
                    let at = (shift * 7 + turn) % expected.len();
                    assert!(read(&file.tensors()[at]) == expected[at], "tensor {at}");
                }
            });
        }
    });
}

#[test]
fn a_file_holds_what_the_checkpoint_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = GgufFile::open(&written(dir.path(), "gguf_q8_0")).unwrap();
    assert_eq!(
        file.value("general.architecture"),
        Some(&Value::Text("gpt2".to_owned()))
    );
    let Some(Value::Texts(tokens)) = file.value("tokenizer.ggml.tokens") else {
        panic!("no tokens");
    };
    let embedding = file
        .tensors()
        .iter()
        .find(|t| t.name == "token_embd.weight")
        .unwrap();
    assert_eq!(tokens.len(), embedding.rows);

    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/base");
    let checkpoint = Checkpoint::open(&base).unwrap();
    let tensor = checkpoint
        .tensor("transformer.h.1.mlp.c_fc.weight")
        .unwrap();
    let original = crate::weights::read_matrix(tensor, true).unwrap();
    let back = file.weights("blk.1.ffn_up.weight").unwrap();
    let largest = original
        .data()
        .iter()
        .fold(0.0f32, |max, v| max.max(v.abs()));
    for (a, b) in original.data().iter().zip(back.data()) {
        assert!((a - b).abs() <= largest / 200.0, "{a} {b}");
    }
    assert_eq!(file.weights("blk.0.attn_norm.bias").unwrap().rows(), 1);
}

/// Llama 3.1's positions are factors in a tensor, a chat template goes along, and both are passed
/// over on the way back.
#[test]
fn slowed_rotations_and_a_chat_template_are_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let llama =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../sparse-engine/tests/golden/tiny-llama");
    for entry in fs::read_dir(&llama).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    fs::write(dir.path().join("chat_template.jinja"), "{{ messages }}").unwrap();
    let config = |rope: serde_json::Value| {
        let mut config: serde_json::Value =
            serde_json::from_slice(&fs::read(llama.join("config.json")).unwrap()).unwrap();
        config["rope_parameters"] = rope;
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    };
    let planned = || {
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let spec = QuantSpec {
            preset: Preset::named("gguf_q8_0").unwrap(),
            format: Format::Gguf,
        };
        let plan = Plan::new(&checkpoint, &spec).unwrap();
        let path = dir.path().join(FILE);
        let gguf = plan.gguf(&checkpoint, plain(FileType::Q8_0))?;
        write(&gguf, &path, |_| None, |_| Ok(()))?;
        assert_eq!(fs::metadata(&path).unwrap().len(), gguf.file_bytes());
        GgufFile::open(&path)
    };
    config(serde_json::json!({
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
    }));
    let file = planned().unwrap();
    let template = Value::Text("{{ messages }}".to_owned());
    assert_eq!(file.value("tokenizer.chat_template"), Some(&template));
    let factors = file.weights(plan::SLOWED).unwrap().into_data();
    assert_eq!((factors[0], factors.last().copied()), (1.0, Some(8.0)));
    assert!(factors.is_sorted());
    let options = crate::Options {
        threads: 1,
        existing: sparse_checkpoint::Existing::Keep,
        max_shard_bytes: u64::MAX,
        calibration: None,
    };
    let plain = dir.path().join("plain");
    dequantize_gguf(&dir.path().join(FILE), &plain, &options, &crate::Silent).unwrap();

    config(serde_json::json!({"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}));
    let file = planned().unwrap();
    assert_eq!(
        file.value("llama.rope.scaling.factor"),
        Some(&Value::Float(2.0))
    );
    assert!(file.weights(plan::SLOWED).is_err());
    config(serde_json::json!({
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "attention_factor": 2.0,
        "original_max_position_embeddings": 64,
    }));
    let file = planned().unwrap();
    let float = |key: &str| match file.value(&format!("llama.rope.scaling.{key}")) {
        Some(Value::Float(found)) => *found,
        other => panic!("{key}: {other:?}"),
    };
    assert_eq!((float("factor"), float("yarn_beta_fast")), (4.0, 32.0));
    // llama.cpp multiplies it with 0.1 ln(4) + 1.
    assert!((float("attn_factor") * 1.138_629 - 2.0).abs() < 1e-5);
    let original = file.value("llama.rope.scaling.original_context_length");
    assert_eq!(original, Some(&Value::Unsigned(64)));
    config(serde_json::json!({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}));
    assert!(planned().unwrap_err().to_string().contains("dynamic"));
}

#[test]
fn a_mixture_has_the_types_of_llama_cpp() {
    let role = |block, role| plain(FileType::Q4_K_M).of(role, block, 12);
    let down: Vec<bool> = (0..12)
        .map(|block| role(block, names::Role::Down) == GgmlType::Q6_K)
        .collect();
    // 12 / 8 = 1 at the front, from 10 on at the back, every third between.
    let more = [0, 3, 6, 9, 10, 11];
    assert!(
        (0..12).all(|block| down[block] == more.contains(&block)),
        "{down:?}"
    );
    assert_eq!(role(1, names::Role::Other), GgmlType::Q4_K);
    assert_eq!(
        plain(FileType::Q4_0).of(names::Role::Output, 0, 1),
        GgmlType::Q6_K
    );
    assert_eq!(
        plain(FileType::Q8_0).of(names::Role::Output, 0, 1),
        GgmlType::Q8_0
    );
}

#[test]
fn damaged_headers_are_errors_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(written(dir.path(), "gguf_q4_0")).unwrap();
    let path = dir.path().join("damaged.gguf");
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        GgufFile::open(&path)
    };
    for length in (0..400).chain([whole.len() / 2, whole.len() - 1]) {
        assert!(open(&whole[..length]).is_err(), "cut to {length}");
    }
    for at in 0..400 {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Ok(file) = open(&bytes) {
                for tensor in file.tensors() {
                    file.weights(&tensor.name).unwrap();
                }
            }
        }
    }
    let mut twice = whole.clone();
    let name = b"blk.0.ffn_up.weight";
    let at = twice.windows(name.len()).position(|bytes| bytes == name);
    twice[at.unwrap() + 4] = b'1';
    assert!(
        open(&twice)
            .unwrap_err()
            .to_string()
            .contains("two tensors")
    );
    let mut huge = whole.clone();
    huge[8..16].fill(0xff);
    assert!(open(&huge).unwrap_err().to_string().contains("do not fit"));
}

#[test]
fn an_importance_matrix_spares_the_first_layers_of_a_deep_model() {
    use names::Role;
    let of = |weighted, role, block| {
        let mixture = Mixture {
            file_type: FileType::Q4_0,
            weighted,
        };
        mixture.of(role, block, 16)
    };
    assert_eq!(of(true, Role::Down, 1), GgmlType::Q4_1);
    assert_eq!(of(true, Role::Down, 2), GgmlType::Q4_0);
    assert_eq!(of(true, Role::Other, 0), GgmlType::Q4_0);
    assert_eq!(of(false, Role::Down, 0), GgmlType::Q4_0);
}

/// Σ p ln(p / q) of two rows of logits.
fn divergence(p: &[f32], q: &[f32]) -> f64 {
    let log_probabilities = |logits: &[f32]| -> Vec<f64> {
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        logits
            .iter()
            .map(|&logit| f64::from(logit) - sum.ln())
            .collect()
    };
    let (p, q) = (log_probabilities(p), log_probabilities(q));
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn keys_and_values_in_half_precision_change_less_than_eight_bits_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = written(dir.path(), "gguf_q8_0");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let checkpoint = Checkpoint::open(&base.join("base")).unwrap();
    let load = |source: &dyn Source| {
        let config = ModelConfig::read(&checkpoint).unwrap();
        Model::load(config, source, 1, &|_, _| ()).unwrap()
    };
    let quantized = load(&GgufSource::open(&file, Activations::Int8).unwrap());
    let plain = load(&Plain::open(&checkpoint).unwrap());
    let text = fs::read_to_string(base.join("shakespeare.txt")).unwrap();
    let tokens = Tokenizer::open(&checkpoint)
        .unwrap()
        .encode(&text[..1000])
        .unwrap();
    let tokens = &tokens[..200];
    let logits = |model: &Model, hidden| model.logits(&hidden, 0..tokens.len()).unwrap();
    let expected = logits(&plain, plain.run(&[tokens], None).unwrap());
    let whole = logits(&quantized, quantized.run(&[tokens], None).unwrap());
    // The keys and values of a text that is run at once are f32, those of a cache here are not.
    let mut cache = quantized.cache(tokens.len());
    let extended = logits(&quantized, quantized.extend(tokens, &mut cache).unwrap());
    let mean = |p: &[f32], q: &[f32]| {
        let vocabulary = plain.config().vocabulary;
        let rows = p.chunks(vocabulary).zip(q.chunks(vocabulary));
        rows.map(|(p, q)| divergence(p, q)).sum::<f64>() / tokens.len() as f64
    };
    let (codes, cached) = (mean(&expected, &whole), mean(&whole, &extended));
    // 6.5e-6 and 4.0e-5: most of the former are activations that round to another of their 8 bits.
    assert!(
        0.0 < cached && cached < codes / 3.0,
        "{cached} where 8 bits change {codes}"
    );
}
