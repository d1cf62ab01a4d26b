#!/usr/bin/env python3
"""Writes a checkpoint in the exact shape of gpt2 (124,439,808 parameters), random weights.

    make_gpt2_124m.py TOKENIZER OUT [--dtype fp32|bf16|fp16] [--seed N]

TOKENIZER is a checkpoint folder whose tokenizer is copied: its ids are the first of the
50,257 that the model knows. Speed and memory depend on shapes and types, not on what the
weights say; the perplexity of such a model is near that of guessing, yet it is a number
that every tool has to agree on. Weights are drawn as transformers initialises GPT-2.
"""

import argparse
import json
import math
import shutil
import zlib
from pathlib import Path

import numpy as np

import checkpoint

LAYERS, WIDTH, VOCABULARY, POSITIONS = 12, 768, 50257, 1024
PARAMETERS = 124_439_808
DTYPES = {"fp32": ("F32", "float32"), "bf16": ("BF16", "bfloat16"), "fp16": ("F16", "float16")}

CONFIG = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 0,
    "embd_pdrop": 0.1,
    "eos_token_id": 0,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_embd": WIDTH,
    "n_head": 12,
    "n_inner": None,
    "n_layer": LAYERS,
    "n_positions": POSITIONS,
    "resid_pdrop": 0.1,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": VOCABULARY,
}


def shapes():
    """Name and shape of every tensor, as transformers saves them."""
    yield "transformer.wte.weight", (VOCABULARY, WIDTH)
    yield "transformer.wpe.weight", (POSITIONS, WIDTH)
    for layer in range(LAYERS):
        block = f"transformer.h.{layer}"
        for module, shape in (
            ("ln_1", (WIDTH,)),
            ("attn.c_attn", (WIDTH, 3 * WIDTH)),
            ("attn.c_proj", (WIDTH, WIDTH)),
            ("ln_2", (WIDTH,)),
            ("mlp.c_fc", (WIDTH, 4 * WIDTH)),
            ("mlp.c_proj", (4 * WIDTH, WIDTH)),
        ):
            yield f"{block}.{module}.weight", shape
            yield f"{block}.{module}.bias", shape[-1:]
    yield "transformer.ln_f.weight", (WIDTH,)
    yield "transformer.ln_f.bias", (WIDTH,)


def values(seed):
    """A function that draws the tensor of a name; each has a generator of its own."""

    def draw(name, shape):
        if name.endswith(".bias"):
            return np.zeros(shape, dtype=np.float32)
        if ".ln_" in name:
            return np.ones(shape, dtype=np.float32)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        scale = 0.02 / math.sqrt(2 * LAYERS) if name.endswith("c_proj.weight") else 0.02
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    return draw


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--seed", type=int, default=124)
    args = parser.parse_args()

    named_shapes = list(shapes())
    total = sum(math.prod(shape) for _, shape in named_shapes)
    assert total == PARAMETERS, total
    stored, config_dtype = DTYPES[args.dtype]
    args.out.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(args.tokenizer / file, args.out / file)
    config = json.dumps(CONFIG | {"dtype": config_dtype}, indent=2, sort_keys=True)
    (args.out / "config.json").write_text(config + "\n")
    # Last, and renamed when whole: a folder with weights is a finished one.
    partial = args.out / "model.safetensors.partial"
    checkpoint.write(partial, stored, named_shapes, values(args.seed))
    partial.rename(args.out / "model.safetensors")


if __name__ == "__main__":
    main()
