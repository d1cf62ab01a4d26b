"""Compresses and rebuilds a pair larger than memory; prints time and peak memory.

usage: large.py SPARSE WORK_FOLDER [--bytes N] [--format jsonl|parquet] [--json FILE]

Makes the pair with make_large.py unless it is there. Peak memory and CPU time
are those that the system counted for the process; the rebuilt file is compared.
"""

import argparse
import filecmp
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "engine"))

import machine


def measured(*command):
    """Runs a command; gives its answer, seconds, CPU seconds and peak memory in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command}: {out.decode()}")
    return {
        "answer": json.loads(out) if out.startswith(b"{") else None,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "user_seconds": usage.ru_utime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sparse", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--bytes", type=int, default=5_000_000_000)
    parser.add_argument("--format", choices=["jsonl", "parquet"], default="jsonl")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    base, derivative = (args.work / f"{name}.{args.format}" for name in ("base", "derivative"))
    if not derivative.exists():
        make = [sys.executable, HERE / "make_large.py", args.work, "--bytes", str(args.bytes), "--format", args.format]
        subprocess.run(make, check=True)
    delta, again = args.work / "delta", args.work / f"again.{args.format}"
    made = measured(args.sparse, "dataset", "compress", base, derivative, "-o", delta, "--force", "--json")
    back = measured(args.sparse, "dataset", "reconstruct", base, delta, "-o", again, "--force", "--json")
    same = filecmp.cmp(derivative, again, shallow=False)
    assert same or not made["answer"]["byte_exact"], "rebuilt and original differ"
    again.unlink()
    size = derivative.stat().st_size
    print(f"base {base.stat().st_size:,}, derivative {size:,}, delta {made['answer']['delta_bytes']:,}, byte for byte: {same}")
    print("| | seconds | CPU seconds | MB/s per core | peak memory |\n|---|---|---|---|---|")
    for name, run in (("compress", made), ("reconstruct", back)):
        print(f"| {name} | {run['seconds']:.1f} | {run['cpu_seconds']:.1f} | {size / run['cpu_seconds'] / 1e6:.0f} | {run['peak_bytes'] / 1e6:.0f} MB |")
    if args.json:
        context = {"date": machine.now(), "commit": machine.commit(HERE), "machine": machine.describe()}
        args.json.write_text(json.dumps({**context, "base": base.stat().st_size, "derivative": size, "compress": made, "reconstruct": back}, indent=1) + "\n")


if __name__ == "__main__":
    main()
