"""perplexity.json: the figures of every protocol for the trained checkpoints, and what the
fine-tune in the repository is away from its base."""

import json
import math
import pathlib
import tempfile

import golden_perplexity
import golden_trained
from support import BASE, DELTA, EVAL_TESTS, sparse

FILE = EVAL_TESTS / "golden" / "perplexity.json"
SLICE = golden_trained.SLICE


def compute(finetune):
    """Everything in the file. `finetune` is the checkpoint that examples/finetune.delta rebuilds."""
    models, scorers = {}, {}
    for name, folder in golden_trained.MODELS.items():
        scorers[name] = golden_trained.scorer(folder)
        models[name] = [
            golden_perplexity.run(
                scorers[name], protocol, SLICE.with_suffix(f".{kind}"), context, stride)
            for protocol, kind, context, stride in golden_perplexity.RUNS
        ]
        # Neither tokenizer adds a beginning of text by itself; a library can be told to.
        models[name].append({
            "protocol": "llama-cpp", "text": f"{SLICE.name}.txt", "context": 256, "stride": 256,
            "add_bos": True,
            **golden_perplexity.llama_cpp(
                scorers[name], golden_perplexity.read(SLICE.with_suffix(".txt")), 256, 256, True),
        })
    path = SLICE.with_suffix(".txt")
    base, candidate = scorers["base"], golden_trained.scorer(finetune)
    against = golden_perplexity.run(candidate, "hf-stride", path, 256, 256)
    before = next(row for row in models["base"] if row["text"] == path.name)
    against |= golden_perplexity.divergence(
        base, candidate, golden_perplexity.read(path), 256, 256)
    against["base_perplexity"] = before["perplexity"]
    against["ppl_delta_pct"] = 100 * (against["perplexity"] / before["perplexity"] - 1)
    return {"models": models, "finetune_against_base": against}


def rebuilt(then):
    """Calls `then` with the fine-tune rebuilt from its delta."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "finetune"
        sparse("delta", "reconstruct", BASE, DELTA, "-o", folder)
        return then(folder)


def write(finetune=None):
    found = compute(finetune) if finetune else rebuilt(compute)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(found, indent=1) + "\n")


def differences(stored, found, path=""):
    """Where two trees of figures differ, floats by more than 1e-6 of their size."""
    if isinstance(stored, dict) and stored.keys() == found.keys():
        return [line for key in stored for line in differences(stored[key], found[key], f"{path}/{key}")]
    if isinstance(stored, list) and len(stored) == len(found):
        return [
            line for at, pair in enumerate(zip(stored, found))
            for line in differences(*pair, f"{path}/{at}")]
    same = (
        math.isclose(stored, found, rel_tol=1e-6, abs_tol=1e-9)
        if isinstance(stored, float) and isinstance(found, float) else stored == found)
    return [] if same else [f"perplexity.json{path}: stored {stored}, found {found}"]


def check(finetune=None):
    found = compute(finetune) if finetune else rebuilt(compute)
    return differences(json.loads(FILE.read_text()), found)
