//! Which files of a repository a checkpoint needs.

use crate::RelPath;

/// The needed files among `all`, in the order to fetch them: the weights last, so that a snapshot
/// that has its weights has everything.
///
/// Weights come as safetensors only, and once: no second layout (`consolidated*`), no
/// reduced-precision variant beside the full one, nothing for other runtimes.
pub(super) fn needed(all: &[RelPath]) -> Vec<&RelPath> {
    let mut needed: Vec<&RelPath> = all.iter().filter(|file| is_needed(file, all)).collect();
    needed.sort_by_key(|file| (is_weights(file), *file));
    needed
}

pub(super) fn is_weights(file: &RelPath) -> bool {
    file.as_str().ends_with(".safetensors")
}

fn is_needed(file: &RelPath, all: &[RelPath]) -> bool {
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
    let folder = file.as_str().split('/').next().unwrap_or_default();
    let name = file.as_str();
    let wanted = KINDS.iter().any(|kind| name.ends_with(kind));
    let foreign = (file.depth() > 1 && FOLDERS.contains(&folder))
        || FOREIGN_INDEXES.iter().any(|suffix| name.ends_with(suffix));
    wanted && !foreign && !is_second_layout(file, all) && !is_variant(file, all)
}

/// `consolidated*.safetensors` beside `model*.safetensors` are the same weights again.
fn is_second_layout(file: &RelPath, all: &[RelPath]) -> bool {
    let is_model = |other: &RelPath| {
        other.parent() == file.parent()
            && other.file_name().starts_with("model")
            && is_weights(other)
    };
    file.file_name().starts_with("consolidated")
        && (is_weights(file) || file.as_str().ends_with(".safetensors.index.json"))
        && all.iter().any(is_model)
}

/// `x.fp16.safetensors` beside `x.safetensors`.
fn is_variant(file: &RelPath, all: &[RelPath]) -> bool {
    ["fp16", "bf16", "fp32", "int8", "fp8", "non_ema"]
        .iter()
        .any(|variant| {
            let marker = format!(".{variant}");
            let Some((start, end)) = file.file_name().split_once(&marker) else {
                return false;
            };
            let plain = file.sibling(&format!("{start}{end}"));
            // The plain weights may be sharded where the variant is not.
            let sharded = file.sibling(&format!("{start}{end}.index.json"));
            [plain, sharded]
                .into_iter()
                .flatten()
                .any(|plain| plain != *file && all.contains(&plain))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(all: &[&str]) -> Vec<String> {
        let all: Vec<_> = all
            .iter()
            .map(|file| RelPath::parse(file).unwrap())
            .collect();
        needed(&all).into_iter().map(RelPath::to_string).collect()
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
