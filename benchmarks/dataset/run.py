"""Measures dataset deltas side by side and prints one table.

usage: run.py SPARSE FIXTURES [--sparse-llm FOLDER] [--json FILE]

SPARSE is the command; FIXTURES holds datasets/ and routing/; FOLDER holds the
unpacked wheel of sparse-llm 0.0.5. Needs zstd and xdelta3 on the path, and
pyarrow for the Parquet rows. Every row is rebuilt and compared; a size counts
every byte of the artifact.
"""

import argparse
import contextlib
import csv
import importlib.util
import io
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import types
from pathlib import Path

HERE = Path(__file__).parent


def run(*command):
    """Runs a command; gives the CPU seconds it took, and what it printed."""
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: {out}")
    return usage.ru_utime + usage.ru_stime, out


def size(path):
    path = Path(path)
    return sum(f.stat().st_size for f in path.rglob("*")) if path.is_dir() else path.stat().st_size


def ours(sparse, base, derivative, work, effort):
    delta, back = work / f"delta-{effort}", work / f"back-{effort}{derivative.suffix}"
    compress, out = run(sparse, "dataset", "compress", base, derivative, "-o", delta, "--effort", effort, "--json", "--force")
    rebuild, _ = run(sparse, "dataset", "reconstruct", base, delta, "-o", back, "--force")
    exact = json.loads(out)["byte_exact"]
    assert not exact or back.read_bytes() == derivative.read_bytes(), derivative
    return {"bytes": size(delta), "compress_cpu_s": compress, "rebuild_cpu_s": rebuild, "byte_exact": exact}


def zstd(base, derivative, work):
    patch, plain = work / "patch.zst", work / "plain.zst"
    compress, _ = run("zstd", "-19", "--long=31", f"--patch-from={base}", derivative, "-o", patch, "-f", "-q")
    rebuild, _ = run("zstd", "-d", "--long=31", f"--patch-from={base}", patch, "-o", work / "back", "-f", "-q")
    run("zstd", "-19", derivative, "-o", plain, "-f", "-q")
    return {"patch": size(patch), "plain": size(plain), "compress_cpu_s": compress, "rebuild_cpu_s": rebuild}


def xdelta(base, derivative, work):
    patch = work / "patch.xd3"
    compress, _ = run("xdelta3", "-9", "-e", "-f", "-B", "512000000", "-s", base, derivative, patch)
    rebuild, _ = run("xdelta3", "-d", "-f", "-B", "512000000", "-s", base, patch, work / "back")
    return {"bytes": size(patch), "compress_cpu_s": compress, "rebuild_cpu_s": rebuild}


def rows_of(path):
    """The rows as sparse-llm would get them from the datasets library."""
    if path.suffix == ".jsonl":
        # Not splitlines: a string may hold other line ends than a file of lines has.
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]
    if path.suffix == ".csv":
        csv.field_size_limit(1 << 30)
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(path).to_pylist()
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    return [
        {"context": p["context"], **q} for a in articles for p in a["paragraphs"] for q in p["qas"]
    ]


def sparse_llm(folder, base, derivative, work):
    """Runs sparse-llm's own code over the same rows."""

    class Split(list):
        @property
        def column_names(self):
            return list(self[0]) if self else []

    module = types.ModuleType("datasets")
    module.load_dataset = lambda path: {"train": Split(rows_of(Path(path)))}
    sys.modules["datasets"] = module
    # Its package imports torch; this file does not need it.
    spec = importlib.util.spec_from_file_location("dataset_delta", folder / "core" / "dataset_delta.py")
    theirs = importlib.util.module_from_spec(spec)
    sys.modules["dataset_delta"] = theirs
    spec.loader.exec_module(theirs)

    out = work / "sparse-llm"
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.compress_dataset_delta(str(base), str(derivative), str(out))
    return size(out)


def chunks(data, gear, smallest=8 << 10, mask=(1 << 16) - 1, largest=128 << 10):
    """Content-defined chunks, as content-addressed stores cut files."""
    start, state = 0, 0
    for at, byte in enumerate(data):
        state = ((state << 1) + gear[byte]) & 0xFFFFFFFFFFFFFFFF
        length = at + 1 - start
        if length >= largest or length >= smallest and (state >> 40) & mask == 0:
            yield data[start : at + 1]
            start, state = at + 1, 0
    if start < len(data):
        yield data[start:]


def parquet_cdc(base, derivative, work):
    """New chunks when both are Parquet with content-defined chunking."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    rng = random.Random(1)
    gear = [rng.getrandbits(64) for _ in range(256)]
    files = []
    for path in (base, derivative):
        out = work / f"cdc-{len(files)}.parquet"
        table = pq.read_table(path) if path.suffix == ".parquet" else pa.Table.from_pylist(rows_of(path))
        pq.write_table(table, out, use_content_defined_chunking=True, compression="zstd")
        files.append(out.read_bytes())
    known = set(chunks(files[0], gear))
    return sum(len(chunk) for chunk in chunks(files[1], gear) if chunk not in known)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sparse", type=Path)
    parser.add_argument("fixtures", type=Path)
    parser.add_argument("--sparse-llm", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data, routing = args.fixtures / "datasets", args.fixtures / "routing"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        made = folder / "made"
        run(sys.executable, HERE / "make_derivatives.py", data / "gsm8k_train.jsonl", data / "gsm8k_test.jsonl", made, data / "squad_validation.parquet")
        train, parquet = data / "gsm8k_train.jsonl", made / "gsm8k_train.parquet"
        pairs = [
            ("squad -> xquad_en", data / "squad_validation.parquet", data / "xquad_en.json"),
            ("gsm8k_test -> responses", data / "gsm8k_test.jsonl", routing / "gsm8k_responses.csv"),
            ("one word in 2 %", train, made / "words_changed.jsonl"),
            ("xquad_en -> xquad_es", data / "xquad_en.json", data / "xquad_es.json"),
            ("mixed, concatenated column", train, made / "mixed_text.jsonl"),
            ("mixed, extracted column", train, made / "mixed_final.jsonl"),
            ("mixed, lower-case column", train, made / "mixed_lower.jsonl"),
            ("mixed, another seed, a counted column", train, made / "mixed_steps.jsonl"),
            ("mixed, as Parquet", parquet, made / "mixed_text.parquet"),
            ("mixed lower-case, as Parquet", parquet, made / "mixed_lower.parquet"),
            ("shuffled", train, made / "shuffled.jsonl"),
            ("filtered", train, made / "filtered.jsonl"),
            ("shuffled, as Parquet with gzip", parquet, made / "shuffled_gzip.parquet"),
            ("squad shuffled, as Parquet", data / "squad_validation.parquet", made / "squad_shuffled.parquet"),
            ("squad shuffled, as CSV", data / "squad_validation.parquet", made / "squad_shuffled.csv"),
        ]
        results = []
        print("| pair | derivative | zstd -19 | zstd --patch-from | xdelta3 -9 | Parquet CDC | sparse-llm | fast | high | highest | high / best byte tool |")
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for name, base, derivative in pairs:
            work = folder / "work"
            work.mkdir(exist_ok=True)
            row = {"pair": name, "derivative_bytes": size(derivative)}
            row["zstd"], row["xdelta"] = zstd(base, derivative, work), xdelta(base, derivative, work)
            row["cdc"] = parquet_cdc(base, derivative, work)
            row["sparse_llm"] = sparse_llm(args.sparse_llm, base, derivative, work) if args.sparse_llm else None
            for effort in ("fast", "high", "highest"):
                row[effort] = ours(args.sparse, base, derivative, work, effort)
            best = min(row["zstd"]["patch"], row["xdelta"]["bytes"])
            row["share"] = row["high"]["bytes"] / best
            results.append(row)
            cells = [row["derivative_bytes"], row["zstd"]["plain"], row["zstd"]["patch"], row["xdelta"]["bytes"], row["cdc"], row["sparse_llm"]]
            cells += [row[effort]["bytes"] for effort in ("fast", "high", "highest")]
            print("|", name, "|", " | ".join("-" if cell is None else f"{cell:,}" for cell in cells), f"| {row['share']:.3f} |", flush=True)
            subprocess.run(["rm", "-rf", work], check=True)
        print("\n| pair | compress, MB a CPU second: fast, high, zstd, xdelta3 | rebuild: fast, high, zstd, xdelta3 |\n|---|---|---|")
        for row in results:
            tools = [row["fast"], row["high"], row["zstd"], row["xdelta"]]
            speeds = [", ".join(f"{row['derivative_bytes'] / max(tool[key], 0.001) / 1e6:.1f}" for tool in tools) for key in ("compress_cpu_s", "rebuild_cpu_s")]
            print("|", row["pair"], "|", " | ".join(speeds), "|")
        if args.json:
            about = {
                "machine": platform.processor() or platform.machine(),
                "zstd": run("zstd", "-V")[1].strip(),
                "commit": run("git", "-C", HERE, "rev-parse", "HEAD")[1].strip(),
            }
            args.json.write_text(json.dumps({**about, "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
