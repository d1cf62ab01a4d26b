"""Reads and writes safetensors files with numpy alone, bf16 included."""

import json
import struct
from pathlib import Path

import numpy as np

# bfloat16 has no numpy type: its bits are kept in uint16.
STORED = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def tensors(folder):
    """Yields (name, dtype, array) of every tensor of a checkpoint folder, shards included."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise SystemExit(f"{folder}: no *.safetensors")
    for file in files:
        data = np.memmap(file, dtype=np.uint8, mode="r")
        (length,) = struct.unpack("<Q", data[:8].tobytes())
        header = json.loads(data[8 : 8 + length].tobytes())
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in STORED:
                raise SystemExit(f"{file}: {name} is {entry['dtype']}, expected one of {[*STORED]}")
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            array = data[start:end].view(STORED[entry["dtype"]]).reshape(entry["shape"])
            yield name, entry["dtype"], array


def to_f32(dtype, array):
    """The values as float32; exact for every type read here."""
    if dtype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def from_f32(dtype, array):
    """float32 values in a stored type, rounded to nearest even."""
    array = np.ascontiguousarray(array, dtype=np.float32)
    if dtype == "BF16":
        bits = array.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return array.astype(STORED[dtype])


def write(path, dtype, named_shapes, values):
    """Writes one safetensors file; `values(name, shape)` gives a tensor as float32.

    Only one tensor is held at a time.
    """
    size = STORED[dtype].itemsize
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in named_shapes:
        end = offset + size * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in named_shapes:
            file.write(from_f32(dtype, values(name, shape)).tobytes())
