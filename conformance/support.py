"""The command under test, and the example checkpoint."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SPARSE = TARGET / "release" / "sparse"
BASE = ROOT / "examples" / "base"
DELTA = ROOT / "examples" / "finetune.delta"
ENGINE_GOLDEN = ROOT / "crates" / "sparse-engine" / "tests" / "golden"
TINY_LLAMA = ENGINE_GOLDEN / "tiny-llama"
EVAL_TESTS = ROOT / "crates" / "sparse-eval" / "tests"


def sparse(*arguments, **environment):
    """Runs the command and returns its JSON."""
    done = subprocess.run(
        [SPARSE, "--json", *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise AssertionError(f"exit {done.returncode}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)
