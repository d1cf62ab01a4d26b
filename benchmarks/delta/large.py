#!/usr/bin/env python3
"""Compresses and rebuilds a pair with the shapes of a large model; prints time and peak memory.

usage: large.py SPARSE BENCH_DELTA WORK_FOLDER [--shape 1b|3b|7b] [--effort fastest|fast|high] [--json FILE]

`bench-delta synth` makes the pair (7b: 13.5 GB each) unless it is there. Rebuilding is compared
with what it cannot do without, in the same run: copying the files that come out, and reading the
base once. Every step begins with the files it reads out of the page cache.
"""

import argparse
import filecmp
import json
import os
import shutil
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "engine"))

import machine
from process import run

PIECE = 1 << 20


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def forget(*folders):
    """Has the system drop what it holds of the files' contents."""
    os.sync()
    for folder in folders:
        for path in files(folder):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(work, *reads):
    forget(*reads)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_all(folder):
    for path in files(folder):
        with open(path, "rb", buffering=0) as file:
            while file.read(PIECE):
                pass


def copy_all(folder, to):
    to.mkdir()
    for path in files(folder):
        with open(path, "rb", buffering=0) as source, open(to / path.name, "wb", buffering=0) as out:
            while piece := source.read(PIECE):
                out.write(piece)


def same(one, other):
    pairs = list(zip(files(one), files(other), strict=True))
    return all(filecmp.cmp(a, b, shallow=False) for a, b in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("sparse", "bench_delta", "work"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--shape", default="7b", choices=["1b", "3b", "7b"])
    parser.add_argument("--effort", default="fast", choices=["fastest", "fast", "high"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    made = args.work / f"synth-{args.shape}"
    if not made.exists():
        run([args.bench_delta, "synth", "--shape", args.shape, "--out", made])
    base, fine = made / "base", made / "finetune"
    delta, back, copy = (args.work / name for name in ("large-delta", "large-back", "large-copy"))
    for folder in (delta, back, copy):
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "shape": args.shape, "effort": args.effort, "machine": machine.describe(),
        "date": machine.now(), "commit": machine.commit(HERE), "load": machine.load(),
        "bytes": sum(path.stat().st_size for path in files(fine)),
    }
    sparse = [args.sparse, "--json", "delta"]
    forget(base, fine)
    compressed = run([*sparse, "compress", base, fine, "-o", delta, "--effort", args.effort])
    result["compress"] = compressed.figures() | {"delta_bytes": json.loads(compressed.output)["delta_bytes"]}
    result["read_base_seconds"] = timed(lambda: read_all(base), base)
    result["copy_output_seconds"] = timed(lambda: copy_all(fine, copy), fine)
    shutil.rmtree(copy)
    forget(base, delta)
    result["reconstruct"] = run([*sparse, "reconstruct", base, delta, "-o", back]).figures()
    result["identical"] = same(fine, back)
    shutil.rmtree(back)
    floor = result["read_base_seconds"] + result["copy_output_seconds"]
    result["reconstruct_over_floor"] = result["reconstruct"]["process_seconds"] / floor
    for step in ("compress", "reconstruct"):
        figures = result[step]
        print(f"{step:12} {figures['process_seconds']:7.1f} s  {figures['process_cpu_seconds']:7.1f} CPU s"
              f"  peak {figures['peak_memory_bytes'] / 1e6:.0f} MB")
    print(f"copying the output and reading the base {floor:.1f} s: "
          f"{result['reconstruct_over_floor']:.2f} times as long")
    print(f"{result['bytes']:,} bytes to {result['compress']['delta_bytes']:,}, identical: {result['identical']}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(0 if result["identical"] else 1)


if __name__ == "__main__":
    main()
