"""What the two trained checkpoints in the repository say about real text.

trained/<name>.safetensors:
    input_ids      I64 [200]   the beginning of the WikiText-2 slice
    positions      I64 [P]     those whose logits are stored
    logits         F32 [P, V]
    prompt_ids     I64 [p]
    greedy         I64 [200]   the most likely continuation of the prompt
    greedy_margin  F32 [200]   by how much each led the runner-up
trained/greedy.json: the same prompt and continuation as text.
"""

import json

import safetensors.torch
import torch
import transformers

from golden_models import MARGIN, load, say
from golden_perplexity import Scorer
from support import BASE, ENGINE_GOLDEN, EVAL_TESTS, TINY_LLAMA

FOLDER = ENGINE_GOLDEN / "trained"
TEXTS = FOLDER / "greedy.json"
SLICE = EVAL_TESTS / "data" / "wikitext2_slice"
MODELS = {"base": BASE, "tiny-llama": TINY_LLAMA}
POSITIONS = [0, 1, 2, 31, 64, 127, 198, 199]
CONTINUATION = 200
PROMPTS = [
    " In the morning the old man",
    " The river is",
    " Robert is an English film , television and theatre actor .",
    " The king said to the",
    " She opened the door and",
    " Kernel drivers must not",
    " The history of the city begins",
    " It was the first time that",
    " After the war , the",
    " The game was released in",
]


def scorer(folder):
    return Scorer(load(folder), transformers.AutoTokenizer.from_pretrained(folder))


def logits(scorer):
    """The logits that are stored, and the ids they are about."""
    ids = scorer.ids(SLICE.with_suffix(".txt").read_text())[:200]
    said = say(scorer.model, ids, 0)
    return said["input_ids"], said["logits"][POSITIONS]


def greedy(scorer, prompt):
    ids = scorer.ids(prompt)
    said = say(scorer.model, ids, CONTINUATION)
    return ids, said["greedy"], said["greedy_margin"]


def write():
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = {}
    for name, folder in MODELS.items():
        model = scorer(folder)
        end = model.tokenizer.eos_token_id
        for prompt in PROMPTS:
            prompt_ids, tokens, margin = greedy(model, prompt)
            varied = len(set(tokens.tolist())) > 10
            if float(margin.min()) > MARGIN and end not in tokens and varied:
                break
        else:
            raise SystemExit(f"{name}: every prompt has a near-tie or an end")
        input_ids, chosen = logits(model)
        safetensors.torch.save_file({
            "input_ids": input_ids,
            "positions": torch.tensor(POSITIONS),
            "logits": chosen.contiguous(),
            "prompt_ids": torch.tensor(prompt_ids),
            "greedy": tokens,
            "greedy_margin": margin,
        }, FOLDER / f"{name}.safetensors")
        texts[name] = {"prompt": prompt, "text": model.tokenizer.decode(tokens)}
    TEXTS.write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n")


def check(tolerance):
    problems = []
    texts = json.loads(TEXTS.read_text())
    for name, folder in MODELS.items():
        model = scorer(folder)
        golden = safetensors.torch.load_file(FOLDER / f"{name}.safetensors")
        input_ids, chosen = logits(model)
        if not torch.equal(input_ids, golden["input_ids"]):
            problems.append(f"{name}: the text has other tokens")
        apart = float((chosen - golden["logits"]).abs().max())
        if not apart <= tolerance:
            problems.append(f"{name}: logits are {apart:.2e} apart")
        prompt_ids, tokens, _ = greedy(model, texts[name]["prompt"])
        if prompt_ids != golden["prompt_ids"].tolist() or not torch.equal(tokens, golden["greedy"]):
            problems.append(f"{name}: another greedy text")
        if model.tokenizer.decode(tokens) != texts[name]["text"]:
            problems.append(f"{name}: the greedy text reads otherwise")
    return problems
