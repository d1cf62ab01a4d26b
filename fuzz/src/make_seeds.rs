//! Writes a few valid inputs for each target to `seeds/`.

use std::fs;
use std::path::Path;

use sparse_checkpoint::{Checkpoint, Dtype, TensorSpec, WriteOptions, write_shards};
use sparse_codec::{Encoder, Fitter, Layout, Scales, encode_full};
use sparse_delta::fuzzing::{encode_raw, take_apart};
use sparse_delta::{CompressOptions, Effort, Existing, Silent, compress};
use sparse_fuzz::{base, bytes, checkpoint, put_part, words};
use sparse_quant::{Format, Method, Options, PRESETS, Preset, QuantSpec};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[1,13]},"b":{"dtype":"F4","shape":[],"data_offsets":[13,13]}}"#;
    put(
        "header",
        "gaps",
        &[
            &20u64.to_le_bytes(),
            header.replace("[],", "[0],").as_bytes(),
        ]
        .concat(),
    )?;
    put("header", "empty", b"\0\0\0\0\0\0\0\0{}")?;

    for (name, index) in [
        (
            "both",
            r#"{"metadata":{"total_size":4},"weight_map":{"a":"1.safetensors","both":"2.safetensors","b":"2.safetensors"}}"#,
        ),
        ("missing", r#"{"weight_map":{"a":"3.safetensors"}}"#),
        (
            "twice",
            r#"{"weight_map":{"a":"1.safetensors","a":"1.safetensors"}}"#,
        ),
    ] {
        put("shard_index", name, index.as_bytes())?;
    }
    let commit = "0123456789abcdef".repeat(3)[..40].to_owned();
    let listing = format!(
        r#"{{"id":"o/n","sha":"{commit}","siblings":[{{"rfilename":"model.fp16.safetensors"}},{{"rfilename":"sub/model.safetensors"}},{{"rfilename":"a:b.png","size":1}}]}}"#
    );
    put("hub", "listing", listing.as_bytes())?;
    put(
        "hub",
        "linked",
        b"x-linked-etag:\"abc\"\nx-linked-size:7\netag:\"def\"\nlocation:/x",
    )?;
    put(
        "hub",
        "plain",
        b"etag:W/\"0a1b\"\ncontent-length:12\ncontent-range:bytes 5-9/10",
    )?;
    put("hub", "repository", b"Qwen/Qwen2-0.5B@refs/pr/4")?;

    let (_dir, base) = base();
    for (name, fine) in [
        ("light", checkpoint(|i| u32::from(i % 3 == 0))),
        ("equal", checkpoint(|_| 0)),
        (
            "strange",
            checkpoint(|i| (i as u32).wrapping_mul(0x9e37_79b9)),
        ),
    ] {
        let fine_checkpoint = Checkpoint::open(fine.path())?;
        let out = fine.path().join("delta");
        let options = CompressOptions {
            effort: Effort::High,
            base_id: "base".to_owned(),
            threads: 1,
            existing: Existing::Keep,
        };
        compress(&base, &fine_checkpoint, &out, &options, &Silent)?;
        let (index, data) = take_apart(&out)?;
        put("index", name, &index)?;
        let mut artifact = Vec::new();
        put_part(&mut artifact, &index);
        artifact.extend(data);
        put("artifact", name, &artifact)?;
    }

    for (number, layout) in [Layout::BF16, Layout::F16, Layout::F32]
        .into_iter()
        .enumerate()
    {
        let (width, len) = (100u16, 1000u16);
        let base = words(layout, len.into());
        for (name, every) in [("dense", 3), ("sparse", 90), ("ranked", 0)] {
            let ranked = name == "ranked";
            if ranked && layout.bits() != 16 {
                continue;
            }
            let step = |(i, &w): (usize, &u32)| match every {
                0 => w ^ (i * i % 5 + 2 * i % 3) as u32,
                _ => w ^ u32::from(i % every == 0),
            };
            let fine: Vec<u32> = base.iter().enumerate().map(step).collect();
            let (tables, scales, chunk) = match layout.bits() {
                16 => {
                    let narrow =
                        |words: &[u32]| words.iter().map(|&w| w as u16).collect::<Vec<_>>();
                    code(layout, ranked, &narrow(&base), &narrow(&fine))
                }
                _ => code(layout, ranked, &base, &fine),
            };
            let mut seed = vec![number as u8, 0];
            seed.extend(width.to_le_bytes());
            seed.extend(len.to_le_bytes());
            seed.extend([0, 0]);
            put_part(&mut seed, &scales);
            put_part(&mut seed, &tables);
            seed.extend(&chunk);
            let name = format!("{name}-{number}");
            put("chunk", &name, &seed)?;
            put("tables", &name, &tables)?;
            put(
                "scales",
                &name,
                &[&width.to_le_bytes(), scales.as_slice()].concat(),
            )?;
        }
        let mut full = vec![number as u8, 1];
        full.extend(width.to_le_bytes());
        full.extend(len.to_le_bytes());
        full.extend([0; 6]);
        encode_full(layout, 100, &base, &mut full);
        put("chunk", &format!("full-{number}"), &full)?;
        let mut seed = vec![number as u8, number as u8, 64, 0];
        seed.extend(bytes(layout, &base[..200]));
        put("round_trip", &format!("words-{number}"), &seed)?;
    }
    quantized()?;
    put("low_rank", "zeros", &[&[0, 4, 4, 1][..], &[0; 40]].concat())?;
    let text = b"chunks of bytes, of bytes, of bytes".repeat(4);
    for (name, base) in [("plain", None), ("xor", Some(vec![0x5a; text.len()]))] {
        let coded = encode_raw(base.as_deref(), &text, 4)?;
        let head = [8 | u8::from(base.is_some()), text.len() as u8, 0];
        put("raw_chunk", name, &[&head[..], &coded].concat())?;
    }
    Ok(())
}

/// Tables, scales and a chunk.
fn code<W: sparse_codec::Word>(
    layout: Layout,
    ranked: bool,
    base: &[W],
    fine: &[W],
) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let segment = Scales::segment_for(100);
    let runs = base.chunks(segment).zip(fine.chunks(segment)).enumerate();
    let mut fitter = match ranked {
        true => Fitter::new(layout).without_columns().ranked(),
        false => Fitter::new(layout),
    };
    fitter.add(
        100,
        fine.len() as u64,
        runs.map(|(i, (b, f))| (i * segment, b, f)),
    );
    let fit = fitter.fit();
    let (mut tables, mut scales, mut chunk) = (Vec::new(), Vec::new(), Vec::new());
    fit.tables.write(&mut tables);
    fit.scales[0].write(&mut scales);
    Encoder::new(layout, &fit).encode(&fit.scales[0], 0, base, fine, &mut chunk);
    (tables, scales, chunk)
}

/// A Llama of one block in every format that is written.
fn quantized() -> Result<()> {
    let model = llama()?;
    let checkpoint = Checkpoint::open(model.path())?;
    let options = Options {
        threads: 1,
        existing: sparse_checkpoint::Existing::Keep,
        max_shard_bytes: sparse_quant::DEFAULT_SHARD_BYTES,
        calibration: None,
    };
    let half = |preset: &Preset| Preset {
        group_size: preset.group_size.map(|_| 32),
        ..*preset
    };
    for preset in PRESETS.iter().filter(|preset| !preset.calibrated) {
        for &format in preset.formats {
            let spec = QuantSpec {
                preset: if preset.method == Method::Rtn {
                    half(preset)
                } else {
                    *preset
                },
                format,
            };
            let name = format!("{}-{format}", preset.name);
            let out = model.path().join(&name);
            if sparse_quant::quantize(&checkpoint, &out, &spec, &options, &sparse_quant::Silent)
                .is_err()
            {
                continue; // of a format that this shape does not go with
            }
            let file = |name: &str| fs::read(out.join(name)).unwrap_or_default();
            if format == Format::Gguf {
                put("gguf", &name, &file("model.gguf"))?;
                continue;
            }
            let mut seed = Vec::new();
            put_part(&mut seed, &file("config.json"));
            put_part(&mut seed, &file("quanto_qmap.json"));
            seed.extend(file("model.safetensors"));
            put("quantized", &name, &seed)?;
        }
    }
    Ok(())
}

fn llama() -> Result<tempfile::TempDir> {
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32,
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "dtype": "bfloat16",
    });
    let letters = ('a'..='z').chain('0'..='5').enumerate();
    let vocab: serde_json::Map<_, _> = letters
        .map(|(id, letter)| (letter.to_string(), id.into()))
        .collect();
    let tokenizer = serde_json::json!({
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
        "decoder": {"type": "ByteLevel"}, "added_tokens": [],
    });
    let block = |name: &str, shape: &[u64]| {
        TensorSpec::new(
            format!("model.layers.0.{name}.weight"),
            Dtype::BF16,
            shape.to_vec(),
        )
    };
    let specs = [
        TensorSpec::new("model.embed_tokens.weight", Dtype::BF16, [32, 64]),
        block("input_layernorm", &[64]),
        block("self_attn.q_proj", &[64, 64]),
        block("self_attn.k_proj", &[32, 64]),
        block("self_attn.v_proj", &[32, 64]),
        block("self_attn.o_proj", &[64, 64]),
        block("post_attention_layernorm", &[64]),
        block("mlp.gate_proj", &[96, 64]),
        block("mlp.up_proj", &[96, 64]),
        block("mlp.down_proj", &[64, 96]),
        TensorSpec::new("model.norm.weight", Dtype::BF16, [64]),
    ];
    let dir = tempfile::tempdir()?;
    write_shards(dir.path(), &specs, &WriteOptions::default(), |spec, out| {
        let count = spec.shape.iter().product::<u64>() as usize;
        out.write_all(&bytes(Layout::BF16, &words(Layout::BF16, count)))?;
        Ok::<(), sparse_checkpoint::Error>(())
    })?;
    fs::write(dir.path().join("config.json"), config.to_string())?;
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string())?;
    Ok(dir)
}

fn put(target: &str, name: &str, seed: &[u8]) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), seed)?)
}
