"""The models that are measured, and the files each of them needs, made where missing."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
# Any English text serves; without the fixtures' text the repository's own is taken.
OWN_TEXT = ["ARCHITECTURE.md", "docs/delta-codec.md", "docs/delta-format.md",
            "docs/dataset-format.md"]


@dataclass
class Model:
    name: str
    dtype: str  # as stored
    contexts: list
    tokens: int
    gguf_types: list
    torch_dtypes: list  # the model may compute in; the fastest is compared
    batches: list
    fixture: str = ""  # a folder of the fixtures' checkpoints; else the made 124M shape


FIXTURE_BATCHES, LARGE_BATCHES = [4, 16, 64], [1, 2, 4]

MODELS = [
    Model("gpt2-base-fp32", "fp32", [256], 65536, ["f32", "f16"], ["fp32"],
          FIXTURE_BATCHES, fixture="gpt2-base-fp32"),
    Model("llama-base-bf16", "bf16", [256], 65536, ["f32", "f16"], ["fp32", "bf16"],
          FIXTURE_BATCHES, fixture="llama-base-bf16"),
    Model("gpt2-124m-fp32", "fp32", [512, 1024], 8192, ["f32", "f16"], ["fp32"], LARGE_BATCHES),
    Model("gpt2-124m-bf16", "bf16", [512], 8192, ["f16", "bf16"], ["fp32", "bf16"],
          LARGE_BATCHES),
    Model("gpt2-124m-fp16", "fp16", [512], 8192, ["f16"], ["fp32", "fp16"], LARGE_BATCHES),
]
DEFAULT = ["gpt2-base-fp32", "llama-base-bf16", "gpt2-124m-fp32", "gpt2-124m-bf16"]


@dataclass
class Files:
    """Where a model's files lie once they are made."""

    checkpoint: Path
    text: Path
    ggufs: dict

    def describe(self):
        weights = self.checkpoint.glob("*.safetensors")
        return {
            "weight_bytes": sum(file.stat().st_size for file in weights),
            "gguf_bytes": {kind: path.stat().st_size for kind, path in self.ggufs.items()},
            "text_sha256": hashlib.sha256(self.text.read_bytes()).hexdigest(),
        }


def script(name, *arguments):
    subprocess.run([sys.executable, HERE / name, *map(str, arguments)], check=True)


def source_text(fixtures, work):
    if fixtures:
        return fixtures / "text" / "wikitext2_test.txt"
    text = work / "repository.txt"
    text.write_text("\n\n".join((REPOSITORY / part).read_text() for part in OWN_TEXT))
    return text


def prepare(model, fixtures, work, tokens):
    """Makes the checkpoint, the text and the GGUF files of a model where they are missing."""
    if model.fixture:
        checkpoint = fixtures / "checkpoints" / model.fixture
    else:
        checkpoint = work / model.name
        if not (checkpoint / "model.safetensors").exists():
            base = fixtures / "checkpoints/gpt2-base-fp32" if fixtures else None
            tokenizer = base or REPOSITORY / "examples/base"
            script("make_gpt2_124m.py", tokenizer, checkpoint, "--dtype", model.dtype)
    text = work / f"{model.name}-{tokens}.txt"
    source = source_text(fixtures, work)
    script("make_text.py", checkpoint / "tokenizer.json", source, text, "--tokens", tokens)
    ggufs = {}
    for kind in model.gguf_types:
        ggufs[kind] = work / f"{model.name}-{kind}.gguf"
        if not ggufs[kind].exists():
            script("to_gguf.py", checkpoint, ggufs[kind], "--type", kind)
    return Files(checkpoint, text, ggufs)
