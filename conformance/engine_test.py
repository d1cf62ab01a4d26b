"""What `sparse eval` and `sparse generate` print, beside what transformers computes."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import golden_figures
import golden_trained
from support import BASE, DELTA, SPARSE, sparse

# 0.01 %.
TOLERANCE = 1e-4
SLICE = golden_trained.SLICE


def has(command):
    """Whether this build of sparse knows the command."""
    return subprocess.run([SPARSE, command, "--help"], capture_output=True).returncode == 0


def evaluate(model, text, protocol, context, stride, *more):
    arguments = ["--text", SLICE.with_name(text), "--protocol", protocol, "--context", context]
    if protocol == "hf-stride":
        arguments += ["--stride", stride]
    return sparse("eval", model, *arguments, *more)


def adding_bos(model, copy):
    """A copy whose tokenizer begins texts with a token; that of neither model does."""
    shutil.copytree(model, copy)
    path = copy / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"add_bos_token": True}
    path.write_text(json.dumps(config))
    return copy


class Golden(unittest.TestCase):
    def test_the_stored_golden_values_hold(self):
        script = pathlib.Path(__file__).with_name("engine_golden.py")
        done = subprocess.run(
            [sys.executable, script, "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


@unittest.skipUnless(has("eval"), "this build has no `sparse eval`")
class Perplexity(unittest.TestCase):
    """Against perplexity.json, which the test above has found to be what transformers computes."""

    @classmethod
    def setUpClass(cls):
        cls.golden = json.loads(golden_figures.FILE.read_text())

    def close(self, found, expected):
        self.assertLessEqual(abs(found / expected - 1), TOLERANCE, f"{found} for {expected}")

    def test_every_protocol_gives_the_figure_that_transformers_does(self):
        for name, rows in self.golden["models"].items():
            for row in rows:
                asked = {key: row[key] for key in ("protocol", "text", "context", "stride")}
                with self.subTest(model=name, **asked), tempfile.TemporaryDirectory() as scratch:
                    model = golden_trained.MODELS[name]
                    if row.get("add_bos"):
                        model = adding_bos(model, pathlib.Path(scratch) / name)
                    found = evaluate(model, **asked)
                    for key in ("protocol", "context", "tokens", "scored_tokens"):
                        self.assertEqual(found[key], row[key], key)
                    for key in {"nll", "perplexity", "perplexity_stderr"} & row.keys():
                        self.close(found[key], row[key])

    def test_parquet_and_json_lines_with_the_same_rows_give_the_same_figure(self):
        found = [
            evaluate(BASE, f"{SLICE.name}{suffix}", "hf-stride", 256, 256)["perplexity"]
            for suffix in (".parquet", ".jsonl")
        ]
        self.assertEqual(*found)

    def test_divergence_from_the_base(self):
        row = self.golden["finetune_against_base"]
        with tempfile.TemporaryDirectory() as scratch:
            fine = pathlib.Path(scratch) / "finetune"
            sparse("delta", "reconstruct", BASE, DELTA, "-o", fine)
            found = evaluate(fine, row["text"], "hf-stride", 256, 256, "--against", BASE)
        self.close(found["perplexity"], row["perplexity"])
        self.close(found["base_perplexity"], row["base_perplexity"])
        self.assertAlmostEqual(found["ppl_delta_pct"], row["ppl_delta_pct"], delta=0.02)
        # A divergence is a small difference of large figures: fp32 leaves it fewer digits.
        for key in ("kl_mean", "kl_stderr", "kl_p99"):
            self.assertLessEqual(abs(found[key] / row[key] - 1), 1e-3, key)
        # One near-tie may fall either way.
        self.assertAlmostEqual(
            found["top1_agreement"], row["top1_agreement"], delta=1.5 / row["kl_tokens"])


@unittest.skipUnless(has("generate"), "this build has no `sparse generate`")
class Generation(unittest.TestCase):
    def test_greedy_text_is_that_of_transformers(self):
        for name, golden in json.loads(golden_trained.TEXTS.read_text()).items():
            with self.subTest(model=name):
                found = sparse(
                    "generate", golden_trained.MODELS[name], "--prompt", golden["prompt"],
                    "--max-tokens", golden_trained.CONTINUATION, "--temperature", 0)
                self.assertEqual(found["text"], golden["text"])


if __name__ == "__main__":
    unittest.main()
