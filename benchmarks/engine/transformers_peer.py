#!/usr/bin/env python3
"""Measures transformers on the CPU; one process per measurement, one JSON object on stdout.

    transformers_peer.py perplexity CHECKPOINT TEXT --protocol P --context N --batch N
    transformers_peer.py decode     CHECKPOINT TEXT --prompt-tokens N --new-tokens N
    transformers_peer.py versions

Clocks start when the model is loaded and the text is tokenized, after one untimed batch
(or generation), and stop at the figure. `--dtype` is the type the model computes in: the
checkpoint's own or fp32.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer
from transformers.generation.streamers import BaseStreamer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load(args):
    torch.set_num_threads(args.threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.checkpoint, dtype=DTYPES[args.dtype]
    )
    tokenizer = Tokenizer.from_file(str(args.checkpoint / "tokenizer.json"))
    ids = tokenizer.encode(args.text.read_bytes().decode("utf-8")).ids
    return model.eval(), torch.tensor(ids[: getattr(args, "max_tokens", None)])


def batches(ids, context, batch, keep_tail):
    """Windows of `context` tokens side by side, `batch` at a time; then the shorter tail."""
    whole = len(ids) // context * context
    yield from ids[:whole].view(-1, context).split(batch)
    if keep_tail and len(ids) - whole > 1:
        yield ids[whole:].unsqueeze(0)


def scored(model, windows, first):
    """Summed negative log-likelihood of the tokens after position `first`, and their number.

    The head is computed for the positions from `first` on, no others.
    """
    keep = windows.shape[1] - first
    logits = model(windows, logits_to_keep=keep, use_cache=False).logits[:, :-1]
    targets = windows[:, first + 1 :]
    nll = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
    return nll.item(), targets.numel()


def perplexity(args):
    """`hf-stride` with stride = context scores every window but for its first token;
    `llama-cpp` scores the second half of every whole window."""
    model, ids = load(args)
    half = args.protocol == "llama-cpp"
    first = args.context // 2 if half else 0
    with torch.inference_mode():
        for windows in batches(ids, args.context, args.batch, keep_tail=False):
            scored(model, windows, first)
            break
        start, cpu = time.perf_counter(), time.process_time()
        total, count, processed = 0.0, 0, 0
        for windows in batches(ids, args.context, args.batch, keep_tail=not half):
            nll, tokens = scored(model, windows, first)
            total, count, processed = total + nll, count + tokens, processed + windows.numel()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "perplexity": math.exp(total / count),
        "scored_tokens": count,
        "processed_tokens": processed,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "tokens_per_second": processed / seconds,
    }


class Clock(BaseStreamer):
    """Notes when each token of a generation arrives."""

    def __init__(self):
        self.started = time.perf_counter()
        self.arrivals = []

    def put(self, value):
        if value.numel() == 1:  # the prompt comes first, as one longer value
            self.arrivals.append(time.perf_counter())

    def end(self):
        pass


def decode(args):
    """Greedy generation as `generate` does it, with its default cache; nothing stops it early."""
    model, ids = load(args)
    prompt = ids[: args.prompt_tokens].unsqueeze(0)
    model.generation_config.eos_token_id = None
    first, rates, latencies, texts = [], [], [], []
    with torch.inference_mode():
        for sample in range(args.samples + 1):
            clock = Clock()
            output = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=args.new_tokens,
                do_sample=False,
                pad_token_id=0,
                streamer=clock,
            )
            times = clock.arrivals
            assert len(times) == args.new_tokens, len(times)
            if sample == 0:
                continue  # warm-up
            first.append((times[0] - clock.started) * 1e3)
            rates.append((len(times) - 1) / (times[-1] - times[0]))
            latencies += [(b - a) * 1e3 for a, b in zip(times, times[1:])]
            texts.append(output[0, args.prompt_tokens :].tolist())
    assert all(text == texts[0] for text in texts)
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return {
        "decode_tokens_per_second": statistics.median(rates),
        "decode_samples": rates,
        "time_to_first_token_ms": statistics.median(first),
        "time_to_first_token_samples_ms": first,
        "token_latency_ms": {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]},
        "token_ids": texts[0],
    }


def versions(_):
    build = torch.__config__.show()
    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch_build": [line.strip() for line in build.splitlines() if "MKL" in line],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for action in (perplexity, decode):
        command = commands.add_parser(action.__name__)
        command.set_defaults(action=action)
        command.add_argument("checkpoint", type=Path)
        command.add_argument("text", type=Path)
        command.add_argument("--dtype", choices=DTYPES, default="fp32")
        command.add_argument("--threads", type=int, default=2)
    commands.choices["perplexity"].add_argument("--protocol", required=True)
    commands.choices["perplexity"].add_argument("--context", type=int, required=True)
    commands.choices["perplexity"].add_argument("--batch", type=int, default=1)
    commands.choices["perplexity"].add_argument("--max-tokens", type=int)
    commands.choices["decode"].add_argument("--prompt-tokens", type=int, default=128)
    commands.choices["decode"].add_argument("--new-tokens", type=int, default=64)
    commands.choices["decode"].add_argument("--samples", type=int, default=5)
    commands.add_parser("versions").set_defaults(action=versions)
    args = parser.parse_args()
    print(json.dumps(args.action(args)))


if __name__ == "__main__":
    main()
