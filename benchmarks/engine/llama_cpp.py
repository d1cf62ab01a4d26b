"""llama.cpp: `llama-perplexity` and `llama-bench` on a GGUF file."""

import json
import re
import statistics

from process import Failed, run

STARTED, FINISHED = "calculating perplexity over", "Final estimate"


class LlamaCpp:
    tool = "llama.cpp"
    protocols = ("llama-cpp",)

    def __init__(self, binaries, gguf, kind, threads):
        self.binaries, self.gguf, self.threads = binaries, gguf, threads
        self.variant = self.arithmetic = kind

    def perplexity(self, text, protocol, context):
        """Timed from the first window to the figure: loading and tokenizing are left out."""
        command = [self.binaries / "llama-perplexity", "--model", self.gguf, "--file", text]
        command += ["--ctx-size", context, "--threads", self.threads]
        # Its log is written by a thread of its own, and now and then lacks its last lines.
        for _ in range(3):
            outcome = run(command, marks=(STARTED, FINISHED), merge=True)
            if FINISHED in outcome.marks:
                break
        else:
            raise Failed("llama-perplexity printed no estimate")
        chunks = int(re.search(STARTED + r" (\d+) chunks", outcome.output)[1])
        seconds = outcome.marks[FINISHED] - outcome.marks[STARTED]
        processed = chunks * context
        return {
            "perplexity": float(re.search(r"PPL = ([\d.]+)", outcome.output)[1]),
            "scored_tokens": chunks * (context - context // 2 - 1),
            "processed_tokens": processed,
            "seconds": seconds,
            "tokens_per_second": processed / seconds,
        } | outcome.figures()

    def decode(self, text, prompt_tokens, new_tokens, samples):
        """Decode speed behind a prompt of that length; the first token costs one prefill.

        `llama-bench` feeds random tokens and picks none, so sampling is not in its time.
        """
        outcome = run(
            [self.binaries / "llama-bench", "--model", self.gguf, "--output", "json"]
            + ["--threads", self.threads, "--repetitions", samples]
            + ["--n-prompt", prompt_tokens, "--n-gen", new_tokens, "--n-depth", f"0,{prompt_tokens}"]
        )
        tests = {(t["n_prompt"], t["n_gen"], t["n_depth"]): t for t in json.loads(outcome.output)}
        prefill = tests[prompt_tokens, 0, 0]["samples_ns"]
        decode = tests[0, new_tokens, prompt_tokens]["samples_ts"]
        return {
            "decode_tokens_per_second": statistics.median(decode),
            "decode_samples": decode,
            "time_to_first_token_ms": statistics.median(prefill) / 1e6,
            "time_to_first_token_samples_ms": [ns / 1e6 for ns in prefill],
            "decode_from_empty_samples": tests[0, new_tokens, 0]["samples_ts"],
        } | outcome.figures()


def versions(binaries):
    """What build_llama_cpp.sh noted: version, commit, flags for this CPU, compiler."""
    return {"llama_cpp": (binaries / "build.txt").read_text().splitlines()}
