#!/usr/bin/env python3
"""Writes what llama.cpp's own library makes of some weights, in every block type that it quantizes
to, with and without an importance matrix: `crates/sparse-quant/tests/golden/blocks.bin`.

    golden_blocks.py LIBGGML_BASE    the library that build_llama_cpp.sh has built

The test `reference.rs` of sparse-quant makes the same weights, and compares the bytes.
"""

import ctypes
import sys
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
# ggml's numbers of the types, in the order in which they are written.
TYPES = {"Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14}
ROWS, COLS = 8, 512


def weights():
    """Numbers between -1 and 1 with heavy tails, exact in f32 at every step; among them a row of
    zeros, one without negative numbers, and one that is small."""
    at = numpy.arange(ROWS * COLS, dtype=numpy.int64)
    x = ((at * 7919 + at // 13 * 31) % 4001 - 2000).astype(numpy.float32) / numpy.float32(2048)
    x = (x * x * x).reshape(ROWS, COLS)
    x[1] = 0
    x[2] = numpy.abs(x[2])
    x[3] *= numpy.float32(2.0**-12)
    return numpy.ascontiguousarray(x)


def importance():
    at = numpy.arange(COLS, dtype=numpy.int64)
    return (1 + at * 37 % 101).astype(numpy.float32) ** 2 / numpy.float32(64)


def main():
    ggml = ctypes.CDLL(sys.argv[1])
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
        ctypes.c_int64, ctypes.c_void_p,
    ]
    x, by = weights(), importance()
    out = b""
    for kind in TYPES.values():
        for matrix in (None, by.ctypes.data):
            room = ctypes.create_string_buffer(4 * x.size)
            size = ggml.ggml_quantize_chunk(kind, x.ctypes.data, room, 0, ROWS, COLS, matrix)
            out += room.raw[:size]
    (ROOT / "crates/sparse-quant/tests/golden/blocks.bin").write_bytes(out)


if __name__ == "__main__":
    main()
