#!/usr/bin/env python3
"""Quantizes checkpoints with sparse and with its peers, side by side; see README.md.

    measure.py --sparse COMMAND --llama-cpp FOLDER --fixtures FOLDER --work FOLDER
               --results FOLDER [--models NAME,...] [--methods NAME,...] [--seeds N] [--tokens N]

Every artifact, ours and theirs, is turned into plain f32 weights. When all are made, one evaluator
judges them: `sparse eval --against` the original, by the protocol hf-stride. Raw numbers go to
RESULTS/quant-MODEL.json. Exits with 1 when a peer's is better beyond the error of the measurement.
"""

import argparse
import hashlib
import json
import math
import shutil
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "engine"))

import machine
from process import Failed, run

MODELS = ["gpt2-base-bf16", "llama-base-bf16"]
GGUF = {"gguf_q4_0": "Q4_0", "gguf_q8_0": "Q8_0", "gguf_q4_k_m": "Q4_K_M", "gguf_q6_k": "Q6_K"}
# Those that gptqmodel has, with their bits and group sizes.
GPTQMODEL = {
    "rtn_int4": (4, 128), "rtn_int8": (8, 128), "gptq_quality": (4, 128),
    "gptq_balanced": (4, 256), "gptq_size": (4, 512), "awq_quality": (4, 128),
    "awq_balanced": (4, 256),
}
LIBRARIES = {
    "hqq_4bit": "hqq", "hqq_3bit": "hqq", "bnb_nf4": "bitsandbytes",
    "bnb_nf4_plain": "bitsandbytes", "bnb_int8": "bitsandbytes",
    "quanto_int8": "optimum-quanto", "quanto_int4": "optimum-quanto",
}
IMATRIX = [f"{name}+imatrix" for name in GGUF]
METHODS = [*LIBRARIES, *GGUF, *IMATRIX, *GPTQMODEL]
# Artifacts that are judged together, in memory at once as plain f32.
TOGETHER = 16
# What is kept of a judgement.
JUDGED = ("ppl_delta_pct", "kl_mean", "kl_stderr", "kl_p99", "top1_agreement")
# Layers of GPT-2 are Conv1D, which these have no place for, whoever writes them.
NOT_FOR_GPT2 = ("awq", "quanto")


def weights_digest(folder):
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Bench:
    def __init__(self, args, model):
        self.args, self.model = args, model
        self.original = args.fixtures / "checkpoints" / model
        self.calibration = args.fixtures / "text" / "wikitext2_valid.txt"
        self.text = args.fixtures / "text" / "wikitext2_test.txt"
        self.work = args.work / model
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        # Runs whose artifacts are not judged yet, with the folders of their plain weights.
        self.waiting = []

    def sparse(self, *arguments):
        outcome = run([self.args.sparse, "--json", *arguments])
        return json.loads(outcome.output), outcome

    def judge_later(self, found, folder):
        """Keeps the weights that a quantized folder or file stands for; plain ones as they are."""
        plain = self.work / f"plain-{len(self.waiting)}"
        if folder.is_dir() and self.is_plain(folder):
            folder.rename(plain)
        else:
            self.sparse("dequantize", folder, "-o", plain)
        self.waiting.append((found, plain))
        return found

    def judge(self):
        """Adds what each artifact loses to its run, of equal weights once; yields after every few."""
        alike = {}
        for found, plain in self.waiting:
            alike.setdefault(weights_digest(plain), []).append((found, plain))
        groups, done = list(alike.values()), 0
        for start in range(0, len(groups), TOGETHER):
            some = groups[start:start + TOGETHER]
            plain = [group[0][1] for group in some]
            if len(plain) == 1:
                # The output of one has another shape.
                plain.append(self.original)
            judged, _ = self.sparse(
                "eval", *plain, "--text", self.text, "--protocol", "hf-stride",
                "--max-tokens", self.args.tokens, "--against", self.original,
            )
            for group, found in zip(some, judged["models"]):
                for one, folder in group:
                    one |= {key: found[key] for key in JUDGED}
                    one["scored_tokens"] = judged["scored_tokens"]
                    shutil.rmtree(folder)
                done += len(group)
            yield done

    def is_plain(self, folder):
        config = json.loads((folder / "config.json").read_text())
        quanto = (folder / "quanto_qmap.json").exists()
        return "quantization_config" not in config and not quanto and not list(folder.glob("*.gguf"))

    def ours(self, preset, seed=None, imatrix=False):
        out = self.work / "ours"
        arguments = ["quantize", self.original, "--preset", preset, "-o", out, "--force"]
        if seed is not None or imatrix:
            arguments += ["--calibration", self.calibration, "--samples", self.samples(preset)]
            arguments += ["--seed", seed or 0]
        made, outcome = self.sparse(*arguments)
        return self.judge_later({
            "seconds": outcome.seconds,
            "peak_memory_bytes": outcome.peak_memory_bytes,
            "bits_per_weight": made["effective_bits_per_weight"],
            "bytes": sum(f.stat().st_size for f in out.iterdir() if f.suffix != ".json"),
        }, out)

    def samples(self, preset):
        """gptqmodel's AWQ takes minutes for as few windows as a quarter of them."""
        return max(self.args.samples // (4 if preset.startswith("awq") else 1), 1)

    def python(self, script, *arguments):
        outcome = run([sys.executable, HERE / script, *arguments])
        made = json.loads(outcome.output.strip().splitlines()[-1])
        # Of the whole process, as ours are: with the imports.
        return {**made, "process_seconds": outcome.seconds} if isinstance(made, dict) else made

    def gptqmodel(self, preset, seed):
        out = self.work / "theirs"
        shutil.rmtree(out, ignore_errors=True)
        bits, group_size = GPTQMODEL[preset]
        made = self.python(
            "peer_gptqmodel.py", self.original, out, "--method", preset.split("_")[0],
            "--bits", bits, "--group-size", group_size, "--text", self.calibration,
            "--samples", self.samples(preset), "--seed", seed or 0,
        )
        seconds = sum(made[f"{part}_seconds"] for part in ("load", "quantize", "save"))
        return self.judge_later({"tool": "gptqmodel", "seconds": seconds, **made}, out)

    def library(self, preset):
        out = self.work / "theirs"
        shutil.rmtree(out, ignore_errors=True)
        made = self.python("peer_library.py", self.original, out, "--method", preset)
        found = {"tool": LIBRARIES[preset], "seconds": made["quantize_seconds"], **made}
        return self.judge_later(found, out)

    def llama_quantize(self, preset, imatrix):
        full, folder = self.work / "full.gguf", self.work / "theirs"
        out = folder / "model.gguf"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in self.original.glob("*.json"):
            shutil.copy(file, folder)
        if not full.exists():
            run([sys.executable, HERE.parent / "engine" / "to_gguf.py", self.original, full,
                 "--type", "bf16"])
        binaries, seconds, peak, arguments = self.args.llama_cpp, 0.0, 0, []
        if imatrix:
            matrix = self.work / "imatrix.gguf"
            made = run([binaries / "llama-imatrix", "--model", full, "--file", self.calibration,
                        "--ctx-size", 256, "--chunks", self.args.samples, "--output-file", matrix,
                        "--threads", 2], merge=True)
            seconds, peak = made.seconds, made.peak_memory_bytes
            arguments = ["--imatrix", matrix]
        made = run([binaries / "llama-quantize", *arguments, full, out, GGUF[preset], 2], merge=True)
        return self.judge_later({
            "tool": "llama.cpp",
            "seconds": seconds + made.seconds,
            "peak_memory_bytes": max(peak, made.peak_memory_bytes),
            "bits_per_weight": self.python("gguf_bits.py", out),
            "bytes": out.stat().st_size,
        }, folder)

    def measure(self, method):
        preset, _, imatrix = method.partition("+")
        calibrated = preset in GPTQMODEL and not preset.startswith("rtn")
        seeds = range(self.args.seeds) if calibrated else [None]
        runs = {"sparse": [], "peer": []}
        for seed in seeds:
            pairs = [("sparse", lambda: self.ours(preset, seed, bool(imatrix)))]
            if preset in GPTQMODEL:
                pairs.append(("peer", lambda: self.gptqmodel(preset, seed)))
            elif preset in LIBRARIES:
                pairs.append(("peer", lambda: self.library(preset)))
            else:
                pairs.append(("peer", lambda: self.llama_quantize(preset, bool(imatrix))))
            for who, make in pairs:
                try:
                    runs[who].append(make())
                except Failed as error:
                    tool = {"tool": "gptqmodel"} if who == "peer" and preset in GPTQMODEL else {}
                    # The last line says what is wrong; those before it name folders of this machine.
                    runs[who].append({**tool, "error": str(error).rsplit(" | ", 1)[-1]})
        return {
            "method": method, "samples": self.samples(preset), **runs,
            "commit": machine.commit(HERE), "date": machine.now(), "load": machine.load(),
        }


def is_judged(row):
    return all("kl_mean" in one or "error" in one for who in ("sparse", "peer") for one in row[who])


def mean(runs, key):
    values = [one[key] for one in runs if key in one]
    return statistics.mean(values) if values else math.nan


def better_peer(row):
    """Whether the peer loses less than we do, beyond three standard errors of either figure."""
    ours, theirs = mean(row["sparse"], "kl_mean"), mean(row["peer"], "kl_mean")
    slack = 3 * math.hypot(mean(row["sparse"], "kl_stderr"), mean(row["peer"], "kl_stderr"))
    return ours > theirs + slack


def table(model, rows):
    lines = [f"## {model}", "", "| method | tool | bits/weight | bytes | PPL | KL | s | peak MB |",
             "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        for who in ("sparse", "peer"):
            runs = row[who]
            if not any("kl_mean" in one for one in runs):
                tool, lines_of_error = runs[0].get("tool", who), runs[0]["error"].splitlines()
                reason = lines_of_error[-1] if lines_of_error else "failed"
                lines.append(f"| {row['method']} | {tool} | {reason[:160]} | | | | | |")
                continue
            show = lambda key, form, scale=1: (
                format(mean(runs, key) * scale, form) if any(key in one for one in runs) else "")
            lines.append(
                f"| {row['method']} | {runs[0].get('tool', 'sparse')} "
                f"| {show('bits_per_weight', '.3f')} | {show('bytes', ',.0f')} "
                f"| {show('ppl_delta_pct', '+.3f')} % | {show('kl_mean', '.6f')} "
                f"± {show('kl_stderr', '.6f')} | {show('seconds', '.2f')} "
                f"| {show('peak_memory_bytes', '.0f', 1e-6)} |")
    return "\n".join(lines) + "\n"


def save(args, model, rows):
    """Writes the rows; those of methods that were not measured again stay, with their commit."""
    path = args.results / f"quant-{model}.json"
    measured = {row["method"]: row for row in rows}
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    merged = {row["method"]: row for row in kept} | measured
    order = [method for method in METHODS if method in merged]
    result = {
        "model": model, "machine": machine.describe(),
        "protocol": "hf-stride",
        "rows": [merged[method] for method in order],
    }
    path.write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--sparse", "--llama-cpp", "--fixtures", "--work", "--results"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=64, help="calibration windows of 256 tokens")
    parser.add_argument("--tokens", type=int, default=10**9,
                        help="of the evaluated text; all of it by default")
    args = parser.parse_args()
    good = True
    args.results.mkdir(parents=True, exist_ok=True)
    for model in args.models.split(","):
        bench, rows = Bench(args, model), []
        for method in args.methods.split(","):
            if method.startswith(NOT_FOR_GPT2) and model.startswith("gpt2"):
                continue
            rows.append(bench.measure(method))
            print(method, {who: [one.get("seconds", one.get("error")) for one in rows[-1][who]]
                           for who in ("sparse", "peer")}, flush=True)
        for judged in bench.judge():
            print(f"{model}: {judged} of {len(bench.waiting)} judged", flush=True)
            save(args, model, [row for row in rows if is_judged(row)])
        shutil.rmtree(bench.work)
        good &= not any(better_peer(row) for row in rows)
        print(table(model, rows), flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
