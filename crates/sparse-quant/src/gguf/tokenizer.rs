//! A `tokenizer.json` under llama.cpp's keys.

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value as Json;
use sparse_checkpoint::Checkpoint;
use sparse_engine::ChatTemplate;

use super::container::Value;
use super::metadata::unsupported;
use crate::Error;

/// Enough for any tokenizer.
const MAX_BYTES: u64 = 256 << 20;

/// Kinds of tokens.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The pairs that describe the tokenizer of a model with `vocabulary` rows of embedding.
///
/// # Errors
/// If there is no `tokenizer.json`, it is not one of byte-pair encoding, or llama.cpp does not know
/// its way to split text.
pub(super) fn pairs(
    checkpoint: &Checkpoint,
    config: &Json,
    vocabulary: usize,
) -> Result<Vec<(String, Value)>, Error> {
    let path = checkpoint.root().join("tokenizer.json");
    let Some(file) = checkpoint.file("tokenizer.json") else {
        return Err(sparse_checkpoint::Error::NotFound { path }.into());
    };
    let json: Json = serde_json::from_slice(&file.read(MAX_BYTES)?)
        .map_err(|error| wrong(&path, &error.to_string()))?;
    let model = &json["model"];
    // Old files do not say the type.
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") {
        return Err(unsupported(
            "this tokenizer",
            "it is not one of byte-pair encoding",
        ));
    }
    let Some(vocab) = model["vocab"].as_object() else {
        return Err(wrong(&path, "model.vocab should be an object"));
    };
    let mut tokens: Vec<(Option<String>, i32)> = vec![(None, UNUSED); vocabulary];
    let mut put = |id: u64, text: &str, kind: i32| -> Result<(), Error> {
        let slot = usize::try_from(id).ok().and_then(|id| tokens.get_mut(id));
        let Some(slot) = slot else {
            return Err(wrong(
                &path,
                &format!("token {id} is beyond the {vocabulary} rows of the embedding"),
            ));
        };
        *slot = (Some(text.to_owned()), kind);
        Ok(())
    };
    let bytes = model["byte_fallback"] == true;
    for (text, id) in vocab {
        let id = id
            .as_u64()
            .ok_or_else(|| wrong(&path, "token ids should be whole numbers"))?;
        let byte = bytes && text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
        let unknown = bytes && model["unk_token"].as_str() == Some(text);
        put(
            id,
            text,
            if byte {
                BYTE
            } else if unknown {
                UNKNOWN
            } else {
                NORMAL
            },
        )?;
    }
    for added in json["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(text)) = (added["id"].as_u64(), added["content"].as_str()) else {
            return Err(wrong(&path, "added_tokens should have ids and contents"));
        };
        let unknown = bytes && model["unk_token"].as_str() == Some(text);
        let kind = match (unknown, added["special"] == true) {
            (true, _) => UNKNOWN,
            (_, true) => CONTROL,
            _ => USER,
        };
        put(id, text, kind)?;
    }
    let kinds: Vec<i32> = tokens.iter().map(|token| token.1).collect();
    let texts = names(tokens.into_iter().map(|token| token.0));
    let mut pairs = Vec::new();
    let mut add = |key: &str, value: Value| pairs.push((format!("tokenizer.ggml.{key}"), value));
    if bytes {
        add("model", Value::Text("llama".to_owned()));
        add("pre", Value::Text("default".to_owned()));
        // Merges are ranked by the ids of what they make.
        let scores = kinds.iter().enumerate();
        let score = |(id, kind): (usize, &i32)| if *kind == NORMAL { -(id as f32) } else { 0.0 };
        add("scores", Value::Floats(scores.map(score).collect()));
    } else {
        add("model", Value::Text("gpt2".to_owned()));
        add(
            "pre",
            Value::Text(splitting(&json["pre_tokenizer"])?.to_owned()),
        );
        add("merges", Value::Texts(merges(&model["merges"], &path)?));
    }
    let beside = settings(checkpoint, "tokenizer_config.json")?;
    let mut special = Vec::new();
    for (key, name, token) in [
        ("bos_token_id", "bos_token_id", "bos_token"),
        ("eos_token_id", "eos_token_id", "eos_token"),
        ("unknown_token_id", "unk_token_id", "unk_token"),
        ("padding_token_id", "pad_token_id", "pad_token"),
    ] {
        let named = beside[token].as_str().or(beside[token]["content"].as_str());
        let named = named.and_then(|named| texts.iter().position(|text| text == named));
        let id = config[name].as_u64().or(config[name][0].as_u64());
        let id = id.or(named.map(|id| id as u64));
        if let Some(id) = id.filter(|&id| (id as usize) < vocabulary) {
            special.push((key, id));
        }
    }
    add("tokens", Value::Texts(texts));
    add("token_type", Value::Numbers(kinds));
    for (key, id) in special {
        add(key, Value::Unsigned(id));
    }
    add(
        "add_bos_token",
        Value::Bool(begins_with_special(&json["post_processor"])),
    );
    if let Some(template) = ChatTemplate::source(checkpoint, &beside)? {
        pairs.push(("tokenizer.chat_template".to_owned(), Value::Text(template)));
    }
    Ok(pairs)
}

/// A file of settings beside the tokenizer, or null.
fn settings(checkpoint: &Checkpoint, name: &str) -> Result<Json, Error> {
    let Some(file) = checkpoint.file(name) else {
        return Ok(Json::Null);
    };
    let path = checkpoint.root().join(name);
    serde_json::from_slice(&file.read(MAX_BYTES)?).map_err(|error| wrong(&path, &error.to_string()))
}

fn wrong(path: &Path, reason: &str) -> Error {
    crate::format::damaged(path, "tokenizer", reason.to_owned())
}

/// A name for every row of the embedding, each once: those without a token get one that is free.
fn names(texts: impl Iterator<Item = Option<String>>) -> Vec<String> {
    let texts: Vec<Option<String>> = texts.collect();
    let taken: HashSet<&str> = texts.iter().flatten().map(String::as_str).collect();
    let name = |(id, text): (usize, &Option<String>)| match text {
        Some(text) => text.clone(),
        None => {
            let mut name = format!("[PAD{id}]");
            while taken.contains(name.as_str()) {
                name.insert(0, '_');
            }
            name
        }
    };
    texts.iter().enumerate().map(name).collect()
}

/// Merges as pairs separated by a space; newer files have them as lists.
fn merges(merges: &Json, path: &Path) -> Result<Vec<String>, Error> {
    let merge = |merge: &Json| match merge {
        Json::String(text) => Some(text.clone()),
        Json::Array(pair) => Some(format!(
            "{} {}",
            pair.first()?.as_str()?,
            pair.get(1)?.as_str()?
        )),
        _ => None,
    };
    let merges = merges
        .as_array()
        .ok_or_else(|| wrong(path, "model.merges should be a list"))?;
    let merges: Option<Vec<String>> = merges.iter().map(merge).collect();
    merges.ok_or_else(|| wrong(path, "model.merges should hold pairs of tokens"))
}

/// Patterns that texts are split by, with llama.cpp's names for them.
const PATTERNS: [(&str, &str); 2] = [
    (
        "llama-bpe",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    (
        "qwen2",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
];

/// llama.cpp's name for the way in which text is split before merging.
fn splitting(pre: &Json) -> Result<&'static str, Error> {
    let byte_level = |pre: &Json| pre["type"] == "ByteLevel" && pre["use_regex"] != false;
    let parts = pre["pretokenizers"].as_array().map(Vec::as_slice);
    let by_pattern = |split: &Json| {
        let pattern = split["pattern"]["Regex"].as_str()?;
        let known = PATTERNS.iter().find(|(_, known)| *known == pattern)?;
        (split["behavior"] == "Isolated" && split["invert"] != true).then_some(known.0)
    };
    let digits = parts.is_some_and(|parts| parts.iter().any(|part| part["type"] == "Digits"));
    if let Some([split, bytes]) = parts
        && !byte_level(bytes)
        && let Some(name) = by_pattern(split)
    {
        return Ok(name);
    }
    match (byte_level(pre), parts) {
        (true, _) => Ok("gpt-2"),
        (_, Some(parts)) if digits && parts.iter().any(byte_level) => Ok("smollm"),
        (_, Some(parts)) if parts.len() == 1 && byte_level(&parts[0]) => Ok("gpt-2"),
        _ => Err(unsupported(
            "this tokenizer",
            "llama.cpp has no name for its way of splitting text",
        )),
    }
}

/// Whether texts begin with a special token.
fn begins_with_special(post: &Json) -> bool {
    let template = |post: &Json| post["single"][0].get("SpecialToken").is_some();
    template(post)
        || post["processors"]
            .as_array()
            .is_some_and(|parts| parts.iter().any(template))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_of_splitting_have_names() {
        let byte_level = serde_json::json!({"type": "ByteLevel", "use_regex": true});
        assert_eq!(splitting(&byte_level).unwrap(), "gpt-2");
        let smol = serde_json::json!({
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level],
        });
        assert_eq!(splitting(&smol).unwrap(), "smollm");
        let llama3 = serde_json::json!({
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": PATTERNS[0].1}, "behavior": "Isolated"},
                {"type": "ByteLevel", "use_regex": false},
            ],
        });
        assert_eq!(splitting(&llama3).unwrap(), "llama-bpe");
        // A pattern that shares a part with a known one is another pattern.
        let mut other = llama3;
        other["pretokenizers"][0]["pattern"]["Regex"] = "\\p{L}+|\\p{N}{1,3}".into();
        assert!(splitting(&other).is_err());
        assert!(splitting(&serde_json::json!({"type": "Whitespace"})).is_err());
    }

    #[test]
    fn rows_without_a_token_get_names_of_their_own() {
        let texts = [Some("[PAD2]".to_owned()), None, None];
        assert_eq!(names(texts.into_iter()), ["[PAD2]", "[PAD1]", "_[PAD2]"]);
    }
}
