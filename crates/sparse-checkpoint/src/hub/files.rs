//! Which files of a repository a checkpoint needs.

use crate::RelPath;

/// How much of a repository to fetch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What a program needs to run the model.
    ToRun,
    /// All that belongs to it: its card, licence and code too.
    Everything,
}

/// The needed files among `all`, in the order to fetch them: the weights last, so that a snapshot
/// that has its weights has everything.
///
/// Weights come as safetensors only, and once: no second layout (`consolidated*`), no
/// reduced-precision variant beside the full one, nothing for other runtimes; pictures, sound and
/// films never. The names are as the hub gave them: a repository may hold a file whose name no
/// checkpoint could have.
pub(super) fn needed(all: &[String], wanted: Wanted) -> Vec<&str> {
    let names = all.iter().map(String::as_str);
    let mut needed: Vec<&str> = names.filter(|name| is_needed(name, all, wanted)).collect();
    needed.sort_by_key(|name| (is_weights(name), *name));
    needed
}

pub(super) fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors")
}

/// The folder with its slash, empty at the root, and the last component.
fn split(name: &str) -> (&str, &str) {
    name.split_at(name.rfind('/').map_or(0, |slash| slash + 1))
}

fn is_needed(name: &str, all: &[String], wanted: Wanted) -> bool {
    const FOLDERS: [&str; 7] = [
        "original", "onnx", "openvino", "coreml", "gguf", "flax", "runs",
    ];
    const KINDS: [&str; 6] = [
        ".safetensors",
        ".json",
        ".txt",
        ".model",
        ".tiktoken",
        ".jinja",
    ];
    const FOREIGN_INDEXES: [&str; 3] = [".bin.index.json", ".msgpack.index.json", ".h5.index.json"];
    // Weights of other tools, and what is only looked at.
    const OTHERS: [&str; 34] = [
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".h5",
        ".msgpack",
        ".onnx",
        ".onnx_data",
        ".ot",
        ".tflite",
        ".gguf",
        ".ggml",
        ".mlmodel",
        ".pb",
        ".npz",
        ".npy",
        ".pkl",
        ".nemo",
        ".zip",
        ".tar",
        ".gz",
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".webp",
        ".svg",
        ".mp4",
        ".mov",
        ".webm",
        ".wav",
        ".mp3",
        ".flac",
        ".pdf",
    ];
    let lower = name.to_ascii_lowercase();
    let wanted = KINDS.iter().any(|kind| name.ends_with(kind))
        || wanted == Wanted::Everything
            && !OTHERS.iter().any(|kind| lower.ends_with(kind))
            && RelPath::parse(name).is_ok();
    let foreign = name
        .split_once('/')
        .is_some_and(|(folder, _)| FOLDERS.contains(&folder))
        || FOREIGN_INDEXES.iter().any(|suffix| name.ends_with(suffix));
    wanted && !foreign && !is_second_layout(name, all) && !is_variant(name, all)
}

/// `consolidated*.safetensors` beside `model*.safetensors` are the same weights again.
fn is_second_layout(name: &str, all: &[String]) -> bool {
    let (folder, file) = split(name);
    let is_model = |other: &String| {
        let (other_folder, other_file) = split(other);
        other_folder == folder && other_file.starts_with("model") && is_weights(other_file)
    };
    file.starts_with("consolidated")
        && (is_weights(file) || file.ends_with(".safetensors.index.json"))
        && all.iter().any(is_model)
}

/// `x.fp16.safetensors` beside `x.safetensors`.
fn is_variant(name: &str, all: &[String]) -> bool {
    let (folder, file) = split(name);
    ["fp16", "bf16", "fp32", "int8", "fp8", "non_ema"]
        .iter()
        .any(|variant| {
            let marker = format!(".{variant}");
            let Some((start, end)) = file.split_once(&marker) else {
                return false;
            };
            // The plain weights may be sharded where the variant is not.
            ["", ".index.json"]
                .map(|index| format!("{folder}{start}{end}{index}"))
                .iter()
                .any(|plain| plain != name && all.contains(plain))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(all: &[&str]) -> Vec<String> {
        let all: Vec<_> = all.iter().map(|&name| name.to_owned()).collect();
        let needed = needed(&all, Wanted::ToRun);
        needed.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_usual_repository() {
        let all = [
            ".gitattributes",
            "README.md",
            "model-00001-of-00002.safetensors",
            "config.json",
            "merges.txt",
            "tokenizer.model",
            "chat_template.jinja",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "original/params.json",
            "onnx/config.json",
            "model-q4.gguf",
            "flax_model.msgpack",
            "a:b.png",
            "../x.bin",
        ];
        let expected = [
            "chat_template.jinja",
            "config.json",
            "merges.txt",
            "model.safetensors.index.json",
            "tokenizer.model",
            "model-00001-of-00002.safetensors",
        ];
        assert_eq!(kept(&all), expected, "weights last");
        let all = all.map(str::to_owned);
        let mut everything = needed(&all, Wanted::Everything);
        everything.retain(|name| !expected.contains(name));
        assert_eq!(everything, [".gitattributes", "README.md"]);
    }

    #[test]
    fn weights_come_once() {
        let both = [
            "consolidated.safetensors",
            "model.safetensors",
            "params.json",
        ];
        assert_eq!(kept(&both), ["params.json", "model.safetensors"]);
        assert_eq!(
            kept(&["consolidated.safetensors"]),
            ["consolidated.safetensors"]
        );
        let variants = [
            "unet/model.fp16.safetensors",
            "unet/model.safetensors",
            "vae/model.fp16.safetensors",
        ];
        assert_eq!(
            kept(&variants),
            ["unet/model.safetensors", "vae/model.fp16.safetensors"]
        );
    }
}
