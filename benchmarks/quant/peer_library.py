#!/usr/bin/env python3
"""Quantizes a checkpoint's layers with hqq, bitsandbytes or optimum-quanto and writes what they
stand for.

    peer_library.py MODEL OUT --method NAME    a key of METHODS

OUT is a plain checkpoint of dequantized weights: the libraries keep codes in modules of their
own, and what counts here is what they stand for. Prints a line of JSON.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path

started = time.perf_counter()
os.environ.setdefault("DISABLE_CUDA", "1")
# Optimum-quanto looks for ninja on the path.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

import safetensors.torch
import torch

LAYERS = (
    "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "q_proj", "k_proj", "v_proj",
    "o_proj", "gate_proj", "up_proj", "down_proj",
)


def hqq(weight, bits, group_size=64):
    from hqq.core.quantize import Quantizer

    codes, meta = Quantizer.quantize(
        weight, nbits=bits, group_size=group_size, axis=1, device="cpu", compute_dtype=torch.float16
    )
    size = codes.numel() * codes.element_size() + 4 * meta["scale"].numel()
    return Quantizer.dequantize(codes, meta), size


def nf4(weight, nested):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    codes, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    blocks = state.absmax.numel()
    size = codes.numel() + (blocks + 4 * -(-blocks // 256) + 4 if nested else 4 * blocks)
    return dequantize_4bit(codes, state), size


def int8(weight):
    """LLM.int8 as transformers has it: weights of outlier inputs are codes as well."""
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant

    codes, absmax, _ = int8_vectorwise_quant(weight.half())
    return int8_vectorwise_dequant(codes, absmax), codes.numel() + 4 * absmax.numel()


def quanto(weight, bits):
    from optimum.quanto import QLinear, qint4, qint8

    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    linear.weight.data = weight
    layer = QLinear.from_module(linear, weights={4: qint4, 8: qint8}[bits])
    layer.freeze()
    # A scale for each row, or a scale and a shift for each group.
    scales = 2 * weight.numel() // layer.weight_group_size if bits == 4 else len(weight)
    size = weight.numel() * bits // 8 + scales * weight.element_size()
    return layer.weight.dequantize().detach(), size


METHODS = {
    "bnb_int8": int8,
    "quanto_int8": lambda weight: quanto(weight, 8),
    "quanto_int4": lambda weight: quanto(weight, 4),
    "hqq_4bit": lambda weight: hqq(weight, 4),
    "hqq_3bit": lambda weight: hqq(weight, 3),
    "bnb_nf4": lambda weight: nf4(weight, True),
    "bnb_nf4_plain": lambda weight: nf4(weight, False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--method", choices=METHODS, required=True)
    args = parser.parse_args()
    gpt2 = json.loads((args.model / "config.json").read_text())["model_type"] == "gpt2"
    shutil.copytree(args.model, args.out, dirs_exist_ok=True)
    file = args.out / "model.safetensors"
    file.chmod(0o644)
    tensors = safetensors.torch.load_file(file)
    ready = time.perf_counter()
    size = weights = 0
    for name, tensor in tensors.items():
        if not name.removesuffix(".weight").endswith(LAYERS) or tensor.ndim != 2:
            continue
        original = tensor.t().contiguous() if gpt2 else tensor
        back, taken = METHODS[args.method](original)
        size, weights = size + taken, weights + tensor.numel()
        back = back.float().reshape(original.shape)
        tensors[name] = (back.t() if gpt2 else back).contiguous()
    done = time.perf_counter()
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    print(json.dumps({
        "import_and_load_seconds": ready - started,
        "quantize_seconds": done - ready,
        "bits_per_weight": 8 * size / weights,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()
