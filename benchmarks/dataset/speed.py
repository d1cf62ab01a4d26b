"""Measures how fast derivatives are compressed and rebuilt, beside zstd and xdelta3.

usage: speed.py SPARSE WORK_FOLDER [--bytes N] [--repeat N] [--format jsonl|parquet ...] [--peers none|quick|all] [--json FILE]

Makes pairs with make_large.py: rows filtered, shuffled, edited, a column added,
some new rows. A figure is bytes of the derivative for each CPU second (user and
system, start of the command included) on one thread, the best of the
repetitions, and for each second on the clock with all cores; peers run
once, and zstd -19, which takes a quarter of an hour, with --peers all only. Ours
checks the digests of base and output, which is in its time; every rebuilt file is
compared with the original afterwards.
"""

import argparse
import filecmp
import json
import subprocess
import sys
from pathlib import Path

from large import HERE, measured

sys.path.insert(0, str(HERE.parent / "engine"))

import machine

ALL_CORES = "high, all cores, time on the clock"


def best(repeat, *command):
    return min((measured(*command) for _ in range(repeat)), key=lambda run: run["cpu_seconds"])


def tools(sparse, base, derivative, work, repeat, peers):
    """Yields name, artifact, and the runs that make it and rebuild from it."""
    delta, again = work / "delta", work / f"again{derivative.suffix}"
    for name, options in (("high", ["--threads", "1"]), ("fast", ["--threads", "1", "--effort", "fast"]), (ALL_CORES, [])):
        make = (sparse, "dataset", "compress", base, derivative, "-o", delta, *options, "--force", "--json")
        threads = options[:2]
        back = (sparse, "dataset", "reconstruct", base, delta, "-o", again, *threads, "--force", "--json")
        made = best(repeat, *make)
        yield f"sparse, {name}", delta / "dataset.delta", made, best(repeat, *back), made["answer"]["byte_exact"]
    if peers == "none":
        return
    patch = work / "patch"
    for level in ("-3", "-19") if peers == "all" else ("-3",):
        prefix = f"--patch-from={base}"
        made = measured("zstd", level, "--long=31", "--single-thread", prefix, derivative, "-o", patch, "-f", "-q")
        back = measured("zstd", "-d", "--long=31", prefix, patch, "-o", again, "-f", "-q")
        yield f"zstd {level} --patch-from", patch, made, back, True
    for level in ("-1", "-9"):
        window = ("-B", "1000000000", "-s", base)
        made = measured("xdelta3", level, "-e", "-f", *window, derivative, patch)
        back = measured("xdelta3", "-d", "-f", *window, patch, again)
        yield f"xdelta3 {level}", patch, made, back, True


# What any tool that writes a Parquet file anew has to do, by the library that wrote it, on one
# thread: CPU seconds to read the base, and to write the derivative.
PYARROW = """
import sys, time
import pyarrow.parquet as pq

base, derivative, again = sys.argv[1:]
clock = time.process_time
start = clock()
pq.read_table(base, use_threads=False)
seconds = clock() - start
file = pq.ParquetFile(derivative)
codec = file.metadata.row_group(0).column(0).compression
with pq.ParquetWriter(again, file.schema_arrow, compression=codec) as writer:
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, use_threads=False)
        start = clock()
        writer.write_table(rows)
        seconds += clock() - start
print(seconds)
"""


def pyarrow(base, derivative, again):
    """The seconds of the above; nothing where pyarrow is not installed."""
    command = [sys.executable, "-c", PYARROW, base, derivative, again]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"cpu_seconds": float(found.stdout)} if found.returncode == 0 else None


def versions():
    found = {}
    for tool, flag in (("zstd", "--version"), ("xdelta3", "-V")):
        said = subprocess.run([tool, flag], capture_output=True, text=True, check=False)
        found[tool] = (said.stdout + said.stderr).strip().splitlines()[0]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sparse", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--bytes", type=int, default=300_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--format", nargs="+", default=["jsonl", "parquet"])
    parser.add_argument("--peers", choices=["none", "quick", "all"], default="quick")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    print("| pair | tool | artifact | compress MB/s | rebuild MB/s | peak memory |\n|---|---|---|---|---|---|")
    for form in args.format:
        base, derivative = (args.work / f"{name}.{form}" for name in ("base", "derivative"))
        if not derivative.exists():
            make = [sys.executable, HERE / "make_large.py", args.work, "--bytes", str(args.bytes), "--format", form]
            subprocess.run(make, check=True)
        size = derivative.stat().st_size
        for name, artifact, made, back, exact in tools(args.sparse, base, derivative, args.work, args.repeat, args.peers):
            again = args.work / f"again.{form}"
            assert not exact or filecmp.cmp(derivative, again, shallow=False), f"{name}: rebuilt and original differ"
            row = {"pair": form, "derivative_bytes": size, "tool": name, "artifact_bytes": artifact.stat().st_size, "compress": made, "rebuild": back}
            rows.append(row)
            seconds = "seconds" if ALL_CORES in name else "cpu_seconds"
            speeds = [f"{size / run[seconds] / 1e6:.0f}" for run in (made, back)]
            peak = max(made["peak_bytes"], back["peak_bytes"]) / 1e6
            print("|", form, "|", name, "|", f"{row['artifact_bytes']:,} | {speeds[0]} | {speeds[1]} | {peak:.0f} MB |", flush=True)
        floor = pyarrow(base, derivative, again) if form == "parquet" else None
        if floor:
            rows.append({"pair": form, "derivative_bytes": size, "tool": "pyarrow reads the base, writes the derivative", "rebuild": floor})
            print(f"| {form} | pyarrow reads the base, writes the derivative | | | {size / floor['cpu_seconds'] / 1e6:.0f} | |", flush=True)
    if args.json:
        found = {"date": machine.now(), "commit": machine.commit(HERE), "machine": machine.describe(), "tools": versions(), "rows": rows}
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
