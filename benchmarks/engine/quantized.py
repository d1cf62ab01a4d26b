#!/usr/bin/env python3
"""Speed with weights of 4 bits, side by side with llama.cpp's Q4_0 and with our own f32.

    quantized.py --sparse COMMAND --llama-cpp FOLDER --work FOLDER --results FOLDER
                 [--fixtures FOLDER] [--rounds N]

On a GPT-2 of 124 M parameters with random weights: reads a prompt of 512 tokens, then says 32.
The tools take turns within every round; llama.cpp runs both the file that its own
llama-quantize makes and ours. Raw numbers go to RESULTS/engine-4bit.json.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path

import llama_cpp
import machine
import models
import sparse_command
from process import Failed, run

MODEL = "gpt2-124m-fp32"
SHAPE = {"prompt_tokens": 512, "new_tokens": 32}


def quantized(args, checkpoint, preset):
    """Our folder for a preset, made where it is missing or older than the command."""
    folder = args.work / f"{MODEL}-{preset}"
    if folder.exists() and folder.stat().st_mtime < args.sparse.stat().st_mtime:
        shutil.rmtree(folder)
    if not folder.exists():
        run([args.sparse, "quantize", checkpoint, "--preset", preset, "-o", folder])
    return folder


def their_q4_0(args, files):
    """The peer's own file."""
    made = args.work / f"{MODEL}-llama-quantize-q4_0.gguf"
    if not made.exists():
        run([args.llama_cpp / "llama-quantize", files.ggufs["f32"], made, "Q4_0"])
    return made


def contenders(args, files):
    ours = {preset: quantized(args, files.checkpoint, preset)
            for preset in ("gguf_q4_0", "rtn_int4", "bnb_nf4", "gguf_q8_0")}
    made = [sparse_command.Sparse(args.sparse, files.checkpoint, "fp32", args.threads)]
    made += [sparse_command.Sparse(args.sparse, folder, preset, args.threads)
             for preset, folder in ours.items()]
    ggufs = {"Q4_0": their_q4_0(args, files),
             "Q4_0 of ours": ours["gguf_q4_0"] / "model.gguf",
             "Q8_0 of ours": ours["gguf_q8_0"] / "model.gguf"}
    made += [llama_cpp.LlamaCpp(args.llama_cpp, gguf, kind, args.threads)
             for kind, gguf in ggufs.items()]
    return made


def table(rows):
    yield f"{'':30}{'prefill':>10}{'decode':>10}   tokens/s, medians; peak MB"
    for row in rows:
        if "error" in row:
            yield f"{row['name']:30}failed: {row['error']}"
            continue
        yield (f"{row['name']:30}{row['prefill_tokens_per_second']:>10,.0f}"
               f"{row['decode_tokens_per_second']:>10,.1f}{row['peak_memory_bytes'] / 1e6:>12,.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("sparse", "llama-cpp", "work", "results"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--fixtures", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    model = next(m for m in models.MODELS if m.name == MODEL)
    files = models.prepare(model, args.fixtures, args.work, model.tokens // 4)
    rows = [{"name": f"{c.tool} {c.variant}", "contender": c, "runs": []}
            for c in contenders(args, files)]
    for _ in range(args.rounds):
        for row in rows:
            before = machine.load()
            try:
                result = row["contender"].decode(files.text, samples=3, **SHAPE)
            except Failed as error:
                row["error"] = str(error)
                continue
            row["runs"].append(result | {"load_before": before, "load_after": machine.load()})
    for row in rows:
        del row["contender"]
        if not row["runs"]:
            continue
        for key in ("decode_tokens_per_second", "time_to_first_token_ms", "peak_memory_bytes"):
            row[key] = statistics.median(run[key] for run in row["runs"])
        row["prefill_tokens_per_second"] = (
            1000 * SHAPE["prompt_tokens"] / row["time_to_first_token_ms"]
        )
    result = {
        "model": MODEL,
        **SHAPE,
        "date": machine.now(),
        "commit": machine.commit(models.REPOSITORY),
        "machine": machine.describe(),
        "versions": sparse_command.versions(args.sparse) | llama_cpp.versions(args.llama_cpp),
        "threads": args.threads,
        "rounds": args.rounds,
        "rows": rows,
    }
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "engine-4bit.json").write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
