"""Our own command: `sparse eval` and `sparse bench`."""

import json
import subprocess

from process import run


class Sparse:
    tool = "sparse"
    protocols = ("llama-cpp", "hf-stride")

    def __init__(self, command, checkpoint, variant, threads, rounded=None):
        self.command, self.checkpoint, self.threads = command, checkpoint, threads
        self.variant, self.arithmetic = variant, rounded or "f32"
        self.weights = ["--weights", rounded] if rounded else []

    def perplexity(self, text, protocol, context):
        """The text fills whole windows: all its tokens count as processed, as for the peers.

        (Our own `tokens_per_second` leaves out the last token of a window, which needs no pass.)
        """
        stride = ["--stride", context] if protocol == "hf-stride" else []
        outcome = run(
            [self.command, "eval", self.checkpoint, "--text", text, "--protocol", protocol]
            + ["--context", context, *stride, "--threads", self.threads, "--json"]
            + self.weights
        )
        result = json.loads(outcome.output)
        return {
            "perplexity": result["perplexity"],
            "scored_tokens": result["scored_tokens"],
            "processed_tokens": result["tokens"],
            "tokens_per_second": result["tokens"] / result["seconds"],
            "seconds": result["seconds"],
            "reported": result,
        } | outcome.figures()

    def decode(self, text, prompt_tokens, new_tokens, samples):
        outcome = run(
            [self.command, "bench", self.checkpoint, "--prompt-tokens", prompt_tokens]
            + ["--new-tokens", new_tokens, "--samples", samples, "--warmup", 1]
            + ["--threads", self.threads, "--json", *self.weights]
        )
        result = json.loads(outcome.output)
        result.pop("model", None)  # a path of this machine
        return {
            "decode_tokens_per_second": result["decode_tokens_per_second"],
            "time_to_first_token_ms": result["time_to_first_token_ms"]["p50"],
            "token_latency_ms": result["token_latency_ms"],
            "reported": result,
        } | outcome.figures()


def has(command, subcommand):
    """Whether this build of the command knows a subcommand."""
    asked = subprocess.run([command, subcommand, "--help"], capture_output=True, check=False)
    return asked.returncode == 0


def versions(command):
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    return {"sparse": said.stdout.strip()}
