"""Perplexity by each protocol, from transformers' logits: what `sparse eval` must print.

Log-probabilities are taken in float64 from fp32 logits, so the figures do not depend on how a
loss sums them. Every protocol scores positions of windows; they differ in the windows, in the
positions, and in what the sum is divided by.
"""

import json
import math
import re

import numpy
import torch


def read(path):
    """A text file is one document; a JSON Lines file has one a row, in its column `text`."""
    content = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line)["text"] for line in content.splitlines()]
    return [content]


class Scorer:
    """A model with its tokenizer, which says how surprising tokens are."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self.length = model.config.max_position_embeddings

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    @torch.no_grad()
    def log_probabilities(self, ids):
        """float64 [T, V]: row t is about the token after position t."""
        logits = self.model(torch.tensor(ids)[None]).logits[0].double().numpy()
        logits -= logits.max(axis=1, keepdims=True)
        return logits - numpy.log(numpy.exp(logits).sum(axis=1, keepdims=True))

    def losses(self, ids, scored):
        """The negative log-likelihoods of the last `scored` ids of a window."""
        table = self.log_probabilities(ids[:-1])
        first = len(ids) - scored
        return numpy.array([-table[at - 1, ids[at]] for at in range(first, len(ids))])


def figures(losses, tokens, nll=None, scored=None):
    """Perplexity with the standard error that llama.cpp prints."""
    losses = numpy.concatenate(losses)
    nll = float(losses.sum()) if nll is None else nll
    scored = len(losses) if scored is None else scored
    perplexity = math.exp(nll / scored)
    error = float(losses.std(ddof=1)) / math.sqrt(len(losses))
    return {
        "tokens": tokens,
        "scored_tokens": scored,
        "nll": nll,
        "perplexity": perplexity,
        "perplexity_stderr": perplexity * error,
    }


def strided_windows(tokens, context, stride):
    """(begin, end, targets) of the Hugging Face guide to perplexity.

    `targets` counts the first token of the text too, which nothing predicts."""
    scored_up_to = 0
    for begin in range(0, tokens, stride):
        end = min(begin + context, tokens)
        yield begin, end, end - scored_up_to
        scored_up_to = end
        if end == tokens:
            return


def hf_stride(scorer, documents, context, stride):
    """The guide's loop: a window's mean loss counts for one token fewer than its targets.

    That is exact where nothing overlaps; where windows overlap, all targets have a predecessor
    and the guide still subtracts one, so the weights are off by one, here as there."""
    ids = scorer.ids("\n\n".join(documents))
    losses, nll, scored = [], 0.0, 0
    for begin, end, targets in strided_windows(len(ids), context, stride):
        weight = targets - 1
        if weight < 1:
            continue
        window = scorer.losses(ids[begin:end], min(targets, end - begin - 1))
        losses.append(window)
        nll += float(window.mean()) * weight
        scored += weight
    return figures(losses, len(ids), nll, scored)


def gptq_paper(scorer, documents, context, stride):
    """Disjoint windows, the tail dropped. All windows weigh the same, so the mean over windows
    of their mean losses is the mean over targets."""
    ids = scorer.ids("\n\n".join(documents))
    losses = [
        scorer.losses(ids[begin:begin + context], context - 1)
        for begin in range(0, len(ids) - context + 1, context)
    ]
    return figures(losses, len(ids))


def llama_cpp(scorer, documents, context, stride, add_bos=False):
    """The raw file less one trailing newline; chunks of a context, each scored from its middle.

    With add_bos the text begins with the token, and it overwrites each chunk's first."""
    text = "\n\n".join(documents)
    bos = [scorer.tokenizer.bos_token_id] if add_bos else []
    ids = bos + scorer.ids(text[:-1] if text.endswith("\n") else text)
    losses = []
    for begin in range(0, len(ids) - context + 1, context):
        chunk = bos + ids[begin + len(bos):begin + context]
        losses.append(scorer.losses(chunk, context - 1 - context // 2))
    return figures(losses, len(ids))


def rolling_windows(ids, prefix, length):
    """(input, scored) of lm-eval's loglikelihood_rolling: every token is predicted once, the
    first after `prefix`; the last window reaches back, so that its context is as long."""
    padded = [prefix] + ids
    for begin in range(0, len(ids), length):
        scored = min(length, len(ids) - begin)
        end = begin + scored
        yield padded[max(0, end - length):end + 1], scored


def lm_eval(scorer, documents, context, stride):
    """Each document alone; the sum is divided by words (and by bytes) of the documents."""
    prefix = scorer.tokenizer.bos_token_id
    if prefix is None:
        prefix = scorer.tokenizer.eos_token_id
    losses, tokens = [], 0
    for document in documents:
        ids = scorer.ids(document)
        tokens += len(ids)
        losses += [scorer.losses(*window) for window in rolling_windows(ids, prefix, context)]
    words = sum(len(re.split(r"\s+", document)) for document in documents)
    size = sum(len(document.encode()) for document in documents)
    found = figures(losses, tokens)
    return {
        "tokens": tokens,
        "scored_tokens": found["scored_tokens"],
        "nll": found["nll"],
        "perplexity": math.exp(found["nll"] / words),
        "words": words,
        "bytes": size,
        "byte_perplexity": math.exp(found["nll"] / size),
        "bits_per_byte": found["nll"] / size / math.log(2),
        "token_perplexity": found["perplexity"],
    }


def per_text(scorer, documents, context, stride):
    """Each text alone, cut off at a context; its mean loss weighs as many tokens as it has,
    the first included. A text of fewer than two tokens has no loss and is left out."""
    total, weights, losses, tokens = 0.0, 0, [], 0
    for document in documents:
        ids = scorer.ids(document)
        tokens += len(ids)
        ids = ids[:context]
        if len(ids) < 2:
            continue
        window = scorer.losses(ids, len(ids) - 1)
        losses.append(window)
        total += float(window.mean()) * len(ids)
        weights += len(ids)
    found = figures(losses, tokens, total, weights)
    return {key: found[key] for key in ("tokens", "scored_tokens", "nll", "perplexity")}


def divergence(base, candidate, documents, context, stride):
    """KL(base || candidate) in nats at every position that hf-stride scores."""
    ids = base.ids("\n\n".join(documents))
    divergences, agreements, ratios = [], [], []
    for begin, end, targets in strided_windows(len(ids), context, stride):
        window = ids[begin:end]
        scored = min(targets, len(window) - 1)
        rows = slice(len(window) - scored - 1, len(window) - 1)
        p, q = (model.log_probabilities(window)[rows] for model in (base, candidate))
        divergences.append((numpy.exp(p) * (p - q)).sum(axis=1))
        agreements.append(p.argmax(axis=1) == q.argmax(axis=1))
        following = window[len(window) - scored:]
        ratios.append((p - q)[numpy.arange(scored), following])
    divergences, ratios = numpy.concatenate(divergences), numpy.concatenate(ratios)
    root = math.sqrt(len(divergences))
    return {
        "kl_tokens": len(divergences),
        "kl_mean": float(divergences.mean()),
        "kl_stderr": float(divergences.std(ddof=1)) / root,
        "kl_p99": float(numpy.percentile(divergences, 99)),
        "top1_agreement": float(numpy.concatenate(agreements).mean()),
        "ln_ppl_ratio": float(ratios.mean()),
        "ln_ppl_ratio_stderr": float(ratios.std(ddof=1)) / root,
    }


PROTOCOLS = {
    "hf-stride": hf_stride,
    "gptq-paper": gptq_paper,
    "llama-cpp": llama_cpp,
    "lm-eval": lm_eval,
    "per-text": per_text,
}

# (protocol, file, context, stride)
RUNS = [
    *(("hf-stride", kind, context, stride)
      for kind in ("txt", "jsonl") for context, stride in ((256, 256), (256, 128), (128, 64))),
    *(("gptq-paper", kind, context, context) for kind in ("txt", "jsonl") for context in (256, 100)),
    *(("llama-cpp", "txt", context, context) for context in (256, 101)),
    *(("lm-eval", kind, context, context) for kind in ("txt", "jsonl") for context in (256, 64)),
    *(("per-text", kind, context, context) for kind in ("txt", "jsonl") for context in (256, 64)),
]


def run(scorer, protocol, path, context, stride):
    """One figure with everything that it depends on."""
    found = PROTOCOLS[protocol](scorer, read(path), context, stride)
    return {"protocol": protocol, "text": path.name, "context": context, "stride": stride, **found}
