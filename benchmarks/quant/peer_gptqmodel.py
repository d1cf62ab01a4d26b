#!/usr/bin/env python3
"""Quantizes a checkpoint with gptqmodel and prints a line of JSON about it.

    peer_gptqmodel.py MODEL OUT --method gptq|awq|rtn --group-size N --text FILE --samples N --seed N

Its own defaults (GPTQ: damping 0.05, group-aware reordering, symmetric, true-sequential) except
for AWQ's zero points, which AutoAWQ's format has and its default (symmetric codes) does not use.
RTN looks at no text; the others calibrate on the very windows that `sparse quantize` draws.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

started = time.perf_counter()

# On two cores it makes one worker and then wants two of it.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

import gptqmodel
import safetensors
import torch
from gptqmodel.quantization.config import AWQConfig, GPTQConfig, RTNConfig

from windows import windows

imported = time.perf_counter()


def bits_per_weight(folder, bits):
    """Of the quantized layers: codes, scales, zero points, and which input is in which group."""
    size = weights = 0
    for file in folder.glob("*.safetensors"):
        with safetensors.safe_open(file, "pt") as tensors:
            for name in tensors.keys():
                if name.endswith((".qweight", ".qzeros", ".scales", ".g_idx")):
                    tensor = tensors.get_tensor(name)
                    size += tensor.numel() * tensor.element_size()
                    weights += tensor.numel() * 32 // bits if name.endswith(".qweight") else 0
    return 8 * size / weights


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--method", choices=["gptq", "awq", "rtn"], required=True)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--symmetric", action="store_true")
    parser.add_argument("--act-order", action="store_true")
    args = parser.parse_args()
    for name in ("model", "out", "text"):
        setattr(args, name, getattr(args, name).resolve())
    os.chdir(args.out.parent)  # it keeps its logs in the current folder

    torch.manual_seed(args.seed)
    config = {
        "gptq": lambda: GPTQConfig(
            bits=4, group_size=args.group_size, **({"desc_act": True} if args.act_order else {})
        ),
        "awq": lambda: AWQConfig(bits=4, group_size=args.group_size, sym=args.symmetric),
        "rtn": lambda: RTNConfig(bits=args.bits, group_size=args.group_size),
    }[args.method]()
    calibration = None if args.method == "rtn" else [
        {"input_ids": ids, "attention_mask": [1] * len(ids)}
        for ids in windows(args.model, args.text, args.samples, args.seed)
    ]
    model = gptqmodel.GPTQModel.load(str(args.model), config, device="cpu")
    ready = time.perf_counter()
    model.quantize(calibration, batch_size=args.batch)
    quantized = time.perf_counter()
    model.save(str(args.out))
    done = time.perf_counter()
    print()
    print(json.dumps({
        "import_seconds": imported - started,
        "load_seconds": ready - imported,
        "quantize_seconds": quantized - ready,
        "save_seconds": done - quantized,
        "bits_per_weight": bits_per_weight(args.out, args.bits),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "dtype": str(next(model.model.parameters()).dtype),
    }))


if __name__ == "__main__":
    main()
