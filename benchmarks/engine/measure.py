#!/usr/bin/env python3
"""Measures the engine side by side with transformers and llama.cpp on this CPU.

    measure.py --sparse COMMAND --llama-cpp FOLDER --work FOLDER --results FOLDER
               [--fixtures FOLDER] [--models NAME,...] [--rounds N] [--quick]

Perplexity of the same windows of the same text, and greedy decoding; the tools take turns
within every round. A model's raw numbers go to RESULTS/engine-MODEL.json. Started by
run.sh, which installs the peers. Exits with 1 when a measurement failed or perplexities
disagree.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import hf_transformers
import llama_cpp
import machine
import models
import report
import sparse_command
from process import Failed

# How far a perplexity may be from that of transformers in fp32, by the arithmetic it was
# computed in. llama.cpp keeps keys and values in f16 whatever the weights are.
TOLERANCE = {"f32": 1e-4, "f16": 1e-3, "bf16": 1e-2}


@dataclass
class Effort:
    rounds: int
    samples: int
    prompt_tokens: int
    new_tokens: int


def sparse(args, files, model, subcommand):
    """Our contenders: weights as stored, and fp32 rounded to f16, as llama.cpp's f16 files are.
    None where this build lacks the subcommand."""
    if not sparse_command.has(args.sparse, subcommand):
        return []
    kinds = [(model.dtype, None)] + ([("f16", "f16")] if model.dtype == "fp32" else [])
    return [
        sparse_command.Sparse(args.sparse, files.checkpoint, variant, args.threads, rounded)
        for variant, rounded in kinds
    ]


def row(tool, variant, **rest):
    return {"tool": tool, "variant": variant, "runs": []} | rest


def take_turns(contenders, rounds, measure):
    """Every contender once per round, in turn; a failure ends that contender's rounds."""
    rows = [row(c.tool, c.variant, arithmetic=c.arithmetic) for c in contenders]
    for number in range(rounds):
        for contender, kept in zip(contenders, rows):
            if "error" in kept:
                continue
            before = machine.load()
            try:
                result = measure(contender)
            except Failed as error:
                kept["error"] = str(error)
                continue
            kept["runs"].append(result | {"load_before": before, "load_after": machine.load()})
            report.progress(number, contender, result)
    return rows


def medians(rows, *keys):
    for kept in rows:
        for key in keys:
            values = [run[key] for run in kept["runs"] if key in run]
            if values:
                kept[key] = statistics.median(values)
    return rows


def check_perplexities(rows, reference, scored):
    """Notes by how much each perplexity differs from the reference, and whether it may."""
    for kept in rows:
        if not kept["runs"]:
            continue
        last = kept["runs"][-1]
        kept["perplexity"] = last["perplexity"]
        kept["deviation"] = last["perplexity"] / reference - 1
        tolerance = TOLERANCE[kept["arithmetic"]]
        if any(abs(run["perplexity"] / reference - 1) > tolerance for run in kept["runs"]):
            kept["disagrees"] = f"perplexity is not within {tolerance:.2%} of transformers' in fp32"
        if any(run["scored_tokens"] != scored for run in kept["runs"]):
            kept["disagrees"] = f"scored {last['scored_tokens']} tokens, transformers {scored}"


def measure_perplexity(args, effort, model, files, protocol, context):
    ours = sparse(args, files, model, "eval")
    peer, probes = hf_transformers.best_for_perplexity(
        files.checkpoint, model.torch_dtypes, model.batches, args.threads,
        files.text, protocol, context,
    )
    contenders = [*ours, peer]
    if protocol in llama_cpp.LlamaCpp.protocols:
        contenders += llama_cpps(args, files)
    exact = hf_transformers.Transformers(files.checkpoint, "fp32", args.threads, peer.batch)
    reference = exact.perplexity(files.text, protocol, context)

    rows = take_turns(
        contenders, effort.rounds, lambda c: c.perplexity(files.text, protocol, context)
    )
    medians(rows, "tokens_per_second", "peak_memory_bytes", "process_seconds")
    check_perplexities(rows, reference["perplexity"], reference["scored_tokens"])
    if not ours:
        rows.insert(0, row("sparse", model.dtype, missing="no `sparse eval` in this build"))
    return {
        "task": "perplexity",
        "protocol": protocol,
        "context": context,
        "processed_tokens": reference["processed_tokens"],
        "scored_tokens": reference["scored_tokens"],
        "reference": reference,
        "transformers_probes": probes,
        "rows": rows,
    }


def measure_decode(args, effort, model, files):
    ours = sparse(args, files, model, "bench")
    shape = {"prompt_tokens": effort.prompt_tokens, "new_tokens": effort.new_tokens}
    peer, probes = hf_transformers.best_for_decode(
        files.checkpoint, model.torch_dtypes, args.threads, files.text, **shape
    )
    contenders = [*ours, peer, *llama_cpps(args, files)]
    rows = take_turns(
        contenders, effort.rounds, lambda c: c.decode(files.text, samples=effort.samples, **shape)
    )
    medians(rows, "decode_tokens_per_second", "time_to_first_token_ms", "peak_memory_bytes")
    if not ours:
        rows.insert(0, row("sparse", model.dtype, missing="no `sparse bench` in this build"))
    return {"task": "decode", **shape, "transformers_probes": probes, "rows": rows}


def llama_cpps(args, files):
    return [
        llama_cpp.LlamaCpp(args.llama_cpp, gguf, kind, args.threads)
        for kind, gguf in files.ggufs.items()
    ]


def measure_model(args, effort, model):
    tokens = model.tokens // 4 if args.quick else model.tokens
    files = models.prepare(model, args.fixtures, args.work, tokens)
    groups = []
    for context in model.contexts[:1] if args.quick else model.contexts:
        for protocol in ("llama-cpp", "hf-stride"):
            groups.append(measure_perplexity(args, effort, model, files, protocol, context))
    groups.append(measure_decode(args, effort, model, files))
    return {
        "model": model.name,
        "dtype": model.dtype,
        "tokens": tokens,
        "date": machine.now(),
        "commit": machine.commit(models.REPOSITORY),
        "machine": machine.describe(),
        "versions": args.versions,
        "threads": args.threads,
        "rounds": effort.rounds,
        **files.describe(),
        "groups": groups,
    }


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparse", type=Path, required=True)
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--fixtures", type=Path)
    parser.add_argument("--models", help="comma-separated: " + ",".join(m.name for m in models.MODELS))
    parser.add_argument("--rounds", type=int, help="3, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a quarter of the text, fewer tokens")
    args = parser.parse_args()
    known = {model.name: model for model in models.MODELS}
    names = args.models.split(",") if args.models else models.DEFAULT
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown model {unknown[0]}; known: {', '.join(known)}")
    args.models = [known[name] for name in names]
    if not args.fixtures:
        if named := [model.name for model in args.models if model.fixture and names != models.DEFAULT]:
            parser.error(f"{named[0]} is one of the fixtures' checkpoints: set SPARSE_FIXTURES")
        args.models = [model for model in args.models if not model.fixture]
    return args


def main():
    args = arguments()
    args.versions = {
        **sparse_command.versions(args.sparse),
        **hf_transformers.versions(),
        **llama_cpp.versions(args.llama_cpp),
    }
    rounds = args.rounds or (1 if args.quick else 3)
    effort = Effort(rounds, samples=5, prompt_tokens=128, new_tokens=64)
    if args.quick:
        effort = Effort(rounds, samples=3, prompt_tokens=128, new_tokens=32)
    good = True
    for model in args.models:
        result = measure_model(args, effort, model)
        args.results.mkdir(parents=True, exist_ok=True)
        path = args.results / f"engine-{model.name}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(report.table(result), flush=True)
        good &= report.is_good(result)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
