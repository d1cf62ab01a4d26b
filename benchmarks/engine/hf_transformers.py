"""transformers, each measurement in a process of its own (see transformers_peer.py)."""

import json
import sys
from pathlib import Path

from process import run

PEER = Path(__file__).with_name("transformers_peer.py")


class Transformers:
    tool = "transformers"
    protocols = ("llama-cpp", "hf-stride")

    def __init__(self, checkpoint, dtype, threads, batch=1):
        self.checkpoint, self.dtype, self.threads, self.batch = checkpoint, dtype, threads, batch
        self.arithmetic = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[dtype]
        self.variant = dtype

    def perplexity(self, text, protocol, context, max_tokens=None):
        limit = ["--max-tokens", max_tokens] if max_tokens else []
        return self.peer(
            ["perplexity", self.checkpoint, text, "--protocol", protocol, "--context", context]
            + ["--batch", self.batch, *limit]
        ) | {"batch": self.batch}

    def decode(self, text, prompt_tokens, new_tokens, samples):
        return self.peer(
            ["decode", self.checkpoint, text, "--prompt-tokens", prompt_tokens]
            + ["--new-tokens", new_tokens, "--samples", samples]
        )

    def peer(self, arguments):
        options = ["--dtype", self.dtype, "--threads", self.threads]
        outcome = run([sys.executable, PEER, *arguments, *options])
        return json.loads(outcome.output) | outcome.figures()


def best_for_perplexity(checkpoint, dtypes, batches, threads, text, protocol, context):
    """The fastest type and batch on the first windows, and every probe that says so."""
    probes = []
    for dtype in dtypes:
        for batch in batches:
            peer = Transformers(checkpoint, dtype, threads, batch)
            limit = max(2 * batch, 8) * context
            probe = peer.perplexity(text, protocol, context, max_tokens=limit)
            probes.append({"dtype": dtype} | probe)
            fastest = max(known["tokens_per_second"] for known in probes)
            if probe["tokens_per_second"] < fastest / 3:
                break  # a type this slow does not catch up with larger batches
    best = max(probes, key=lambda probe: probe["tokens_per_second"])
    return Transformers(checkpoint, best["dtype"], threads, best["batch"]), probes


def best_for_decode(checkpoint, dtypes, threads, text, prompt_tokens, new_tokens):
    """The type in which `generate` is fastest, and the probes."""
    probes = []
    for dtype in dtypes:
        peer = Transformers(checkpoint, dtype, threads)
        probes.append({"dtype": dtype} | peer.decode(text, prompt_tokens, new_tokens, 1))
    best = max(probes, key=lambda probe: probe["decode_tokens_per_second"])
    return Transformers(checkpoint, best["dtype"], threads), probes


def versions():
    return json.loads(run([sys.executable, PEER, "versions"]).output)
