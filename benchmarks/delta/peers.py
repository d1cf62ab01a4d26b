#!/usr/bin/env python3
"""Runs the peers that are Python packages: ZipNN and sparse-llm.

`bench-delta` starts this once and asks for one round at a time, so that these
methods take turns with its own. One JSON object per line each way:

    <- {"versions": {...}}
    -> {"method": NAME, "base": FILE, "fine": FILE, "dtype": "BF16",
        "base_checkpoint": DIR, "fine_checkpoint": DIR}
    <- {"bytes": N, "encode_seconds": S, "decode_seconds": S, "identical": BOOL,
        "note": TEXT}  or  {"error": TEXT}

FILE holds the tensors' bytes, one after the other. Everything runs on one thread.
"""
import contextlib
import functools
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


@functools.cache
def content(path):
    return Path(path).read_bytes()


def timed(action):
    """What an action returns, and how long it took."""
    start = time.process_time()
    result = action()
    return result, time.process_time() - start


def zipnn(request, delta):
    """ZipNN on the bytes; `delta` is its own mode, an XOR of buffers of equal length."""
    from zipnn import ZipNN

    dtype = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[request["dtype"]]
    base, fine = content(request["base"]), content(request["fine"])
    second = base if delta else None
    if delta and len(base) != len(fine):
        raise ValueError("needs base and fine-tune of equal length")
    codec = ZipNN(
        method="AUTO",
        input_format="byte",
        bytearray_dtype=dtype,
        threads=1,
        delta_compressed_type="byte" if delta else 0,
    )
    # Both directions may work in place, so each is handed a copy of its own.
    data = bytearray(fine)
    encoded, encode = timed(lambda: codec.compress(data, delta_second_data=second))
    stored = bytes(encoded)
    decoded, decode = timed(lambda: codec.decompress(stored, delta_second_data=second))
    return len(stored), encode, decode, bytes(decoded) == fine, None


def sparse_llm(request):
    """sparse-llm from checkpoint to artifact and back; times include reading files."""
    import torch
    from core import compress_delta, reconstruct_from_delta
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    base, fine = request["base_checkpoint"], request["fine_checkpoint"]
    with tempfile.TemporaryDirectory() as out:
        _, encode = timed(lambda: compress_delta(base, fine, out, device="cpu"))
        size = sum(f.stat().st_size for f in Path(out).rglob("*") if f.is_file())
        rebuilt, decode = timed(lambda: reconstruct_from_delta(base, out, device="cpu"))
    original = dict(AutoModelForCausalLM.from_pretrained(fine, dtype="auto").named_parameters())
    wrong = total = 0
    identical = True
    for name, got in rebuilt.named_parameters():
        want = original[name]
        identical &= got.dtype == want.dtype and torch.equal(got, want)
        if got.shape == want.shape:
            wrong += int((got.float() != want.float()).sum())
        else:
            wrong += want.numel()
        total += want.numel()
    dtypes = {str(p.dtype).removeprefix("torch.") for p in rebuilt.parameters()}
    note = f"{wrong / total:.1%} of the weights wrong, rebuilt as {', '.join(sorted(dtypes))}"
    return size, encode, decode, identical, note


METHODS = {
    "zipnn": lambda request: zipnn(request, delta=False),
    "zipnn-xor": lambda request: zipnn(request, delta=True),
    "sparse-llm": sparse_llm,
}


def answer(request):
    try:
        size, encode, decode, identical, note = METHODS[request["method"]](request)
    except Exception as error:  # one peer's failure is a row of the table
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "bytes": size,
        "encode_seconds": encode,
        "decode_seconds": decode,
        "identical": identical,
        "note": note,
    }


def versions():
    found = {"python": sys.version.split()[0]}
    for package in ("zipnn", "sparse-llm", "torch", "transformers", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def main():
    # The packages print as they please: the replies keep a channel of their own.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps({"versions": versions()}), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
