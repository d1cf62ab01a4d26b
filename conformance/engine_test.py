"""What `sparse eval` and `sparse generate` print, beside what transformers computes."""

import functools
import pathlib
import subprocess
import sys
import tempfile
import unittest

import golden_perplexity
import golden_trained
from support import BASE, DELTA, SPARSE, sparse

# 0.01 %.
TOLERANCE = 1e-4
SLICE = golden_trained.SLICE


def has(command):
    """Whether this build of sparse knows the command."""
    return subprocess.run([SPARSE, command, "--help"], capture_output=True).returncode == 0


@functools.cache
def scorer(folder):
    return golden_trained.scorer(folder)


def evaluate(model, text, protocol, context, stride, *more):
    arguments = ["--text", text, "--protocol", protocol, "--context", context]
    if protocol == "hf-stride":
        arguments += ["--stride", stride]
    return sparse("eval", model, *arguments, *more)


class Golden(unittest.TestCase):
    def test_the_stored_golden_values_hold(self):
        script = pathlib.Path(__file__).with_name("engine_golden.py")
        done = subprocess.run(
            [sys.executable, script, "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


@unittest.skipUnless(has("eval"), "this build has no `sparse eval`")
class Perplexity(unittest.TestCase):
    def close(self, found, expected):
        self.assertLessEqual(abs(found / expected - 1), TOLERANCE, f"{found} for {expected}")

    def test_every_protocol_gives_the_figure_that_transformers_does(self):
        for folder in golden_trained.MODELS.values():
            for protocol, kind, context, stride in golden_perplexity.RUNS:
                text = SLICE.with_suffix(f".{kind}")
                with self.subTest(
                        model=folder.name, protocol=protocol, text=kind, context=context, stride=stride):
                    expected = golden_perplexity.run(
                        scorer(folder), protocol, text, context, stride)
                    found = evaluate(folder, text, protocol, context, stride)
                    for key in ("protocol", "context", "tokens", "scored_tokens"):
                        self.assertEqual(found[key], expected[key], key)
                    for key in ("nll", "perplexity", "perplexity_stderr"):
                        if key in expected:
                            self.close(found[key], expected[key])

    def test_parquet_and_json_lines_with_the_same_rows_give_the_same_figure(self):
        found = [
            evaluate(BASE, SLICE.with_suffix(suffix), "hf-stride", 256, 256)["perplexity"]
            for suffix in (".parquet", ".jsonl")
        ]
        self.assertEqual(*found)

    def test_divergence_from_the_base(self):
        text = SLICE.with_suffix(".txt")
        with tempfile.TemporaryDirectory() as scratch:
            fine = pathlib.Path(scratch) / "finetune"
            sparse("delta", "reconstruct", BASE, DELTA, "-o", fine)
            found = evaluate(fine, text, "hf-stride", 256, 256, "--against", BASE)
            documents = golden_perplexity.read(text)
            candidate = golden_trained.scorer(fine)
            expected = golden_perplexity.divergence(scorer(BASE), candidate, documents, 256, 256)
            before, after = (
                golden_perplexity.hf_stride(model, documents, 256, 256)["perplexity"]
                for model in (scorer(BASE), candidate))
        self.close(found["perplexity"], after)
        self.close(found["base_perplexity"], before)
        self.assertAlmostEqual(found["ppl_delta_pct"], 100 * (after / before - 1), delta=0.02)
        # A divergence is a small difference of large figures: fp32 leaves it four digits.
        for key in ("kl_mean", "kl_stderr", "kl_p99"):
            self.assertLessEqual(abs(found[key] / expected[key] - 1), 1e-3, key)
        # One near-tie may fall either way.
        self.assertAlmostEqual(
            found["top1_agreement"], expected["top1_agreement"], delta=1.5 / expected["scored_tokens"])


@unittest.skipUnless(has("generate"), "this build has no `sparse generate`")
class Generation(unittest.TestCase):
    def test_greedy_text_is_that_of_transformers(self):
        for name, prompt in golden_trained.prompts().items():
            with self.subTest(model=name):
                model = scorer(golden_trained.MODELS[name])
                _, tokens, _ = golden_trained.greedy(model, prompt)
                found = sparse("generate", golden_trained.MODELS[name], "--prompt", prompt,
                               "--max-tokens", golden_trained.CONTINUATION, "--temperature", 0)
                self.assertEqual(found["text"], model.tokenizer.decode(tokens))


if __name__ == "__main__":
    unittest.main()
