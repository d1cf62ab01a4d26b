#!/usr/bin/env python3
"""Prints the bits per weight of a GGUF file's quantized tensors, as a line of JSON.

    gguf_bits.py FILE.gguf

A process of its own: what measure.py imports would count as the peak memory of what it starts.
"""

import json
import sys

import gguf

tensors = [one for one in gguf.GGUFReader(sys.argv[1]).tensors if one.tensor_type.name[0] == "Q"]
print(json.dumps(8 * sum(int(t.n_bytes) for t in tensors) / sum(int(t.n_elements) for t in tensors)))
