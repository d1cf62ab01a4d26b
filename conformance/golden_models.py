"""Makes a small random model, writes its checkpoint, and computes what it says.

A golden folder is a checkpoint plus golden.safetensors:
    input_ids      I64 [T]     the text
    logits         F32 [T, V]  after every token of it
    greedy         I64 [G]     the G most likely next tokens, one after another, with a KV cache
    greedy_margin  F32 [G]     by how much each led the runner-up
"""

import json
import pathlib
import shutil
import tempfile

import numpy
import safetensors.torch
import torch
import transformers

from golden_configs import VOCABULARY

# The models are too small to share between threads.
torch.set_num_threads(1)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TEXT = 32
CONTINUATION = 30
# A lead that no order of summation in fp32 turns round.
MARGIN = 1e-3
DISTINCT = 5


def load(folder):
    """The checkpoint with its weights upcast to fp32, attention computed step by step."""
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    # transformers would make them up.
    if loading["missing_keys"] or loading["mismatched_keys"]:
        raise SystemExit(f"{folder}: {loading}")
    return model.eval()


def text():
    return numpy.random.default_rng(3).integers(2, VOCABULARY, TEXT)


@torch.no_grad()
def say(model, ids, continuation):
    """What golden.safetensors holds."""
    cache = transformers.DynamicCache(config=model.config)
    output = model(torch.tensor(ids)[None], cache=cache)
    logits = output.logits[0]
    greedy, margins = [], []
    for _ in range(continuation):
        best = output.logits[0, -1].topk(2)
        greedy.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        output = model(torch.tensor([[greedy[-1]]]), cache=cache)
    return {
        "input_ids": torch.tensor(ids, dtype=torch.int64),
        "logits": logits.contiguous(),
        "greedy": torch.tensor(greedy, dtype=torch.int64),
        "greedy_margin": torch.tensor(margins),
    }


@torch.no_grad()
def randomise(model, seed):
    """Fills every parameter, so that one that is forgotten or misplaced shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 2:
            parameter.copy_(0.25 * noise)
        elif name.endswith("bias"):
            parameter.copy_(0.2 * noise)
        else:
            parameter.copy_(1 + 0.3 * noise)


def age(folder, kind):
    """Rewrites the checkpoint with the names and buffers of the architecture's first releases."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    config = json.loads((folder / "config.json").read_text())
    for layer in range(2):
        if kind == "rotary":
            half = config["hidden_size"] // config["num_attention_heads"] // 2
            frequencies = 10000.0 ** (-torch.arange(half) / half)
            tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = frequencies
            continue
        size = config["n_positions"]
        mask = torch.ones(size, size, dtype=torch.uint8).tril()[None, None]
        tensors[f"transformer.h.{layer}.attn.bias"] = mask
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    if kind == "bare":
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    (folder / "config.json").write_text(as_v4(config))


def add_head(folder):
    """Stores a head that is not the embedding."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def as_v4(config):
    """The configuration in transformers 4's words."""
    config = dict(config)
    config["transformers_version"] = "4.40.2"
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    scaling = config.pop("rope_parameters", None)
    if scaling is not None:
        scaling = dict(scaling)
        theta, partial = scaling.pop("rope_theta"), scaling.pop("partial_rotary_factor", None)
        if config["model_type"] == "gpt_neox":
            config |= {"rotary_emb_base": theta, "rotary_pct": partial}
        else:
            config["rope_theta"] = theta
            if partial is not None:
                config["partial_rotary_factor"] = partial
        kind = scaling.pop("rope_type")
        # "type" was the first name, "rope_type" came with llama3.
        key = "rope_type" if kind == "llama3" else "type"
        config["rope_scaling"] = None if kind == "default" else {key: kind, **scaling}
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def save(case, model, folder):
    model.to(getattr(torch, case.dtype)).save_pretrained(folder, max_shard_size=case.shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if case.aged:
        age(folder, case.aged)
    if case.head_beside:
        add_head(folder)
    if case.v4:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.v4.json").write_text(as_v4(config))


def write(case, target):
    """Writes the case with the first seed whose greedy text has no near-tie and some variety."""
    for seed in range(400):
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            folder = pathlib.Path(scratch) / case.name
            model = transformers.AutoModelForCausalLM.from_config(case.config)
            randomise(model, seed)
            save(case, model, folder)
            said = say(load(folder), text(), CONTINUATION)
            if float(said["greedy_margin"].min()) < MARGIN:
                continue
            if len(set(said["greedy"].tolist())) < DISTINCT:
                continue
            safetensors.torch.save_file(said, folder / "golden.safetensors")
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
            return
    raise SystemExit(f"{case.name}: no seed gives a text without near-ties")


def check(case, folder, tolerance):
    """What differs between the stored golden values and a fresh computation: a list of lines."""
    problems = []
    golden = safetensors.torch.load_file(folder / "golden.safetensors")
    said = say(load(folder), golden["input_ids"].tolist(), len(golden["greedy"]))
    apart = float((said["logits"] - golden["logits"]).abs().max())
    if not apart <= tolerance:
        problems.append(f"{case.name}: logits are {apart:.2e} apart")
    if not torch.equal(said["greedy"], golden["greedy"]):
        problems.append(f"{case.name}: another greedy text")
    if float(golden["greedy_margin"].min()) < MARGIN:
        problems.append(f"{case.name}: the greedy text has a near-tie")
    if case.v4:
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copy(folder / "config.v4.json", pathlib.Path(scratch) / "config.json")
            shutil.copy(folder / "model.safetensors", scratch)
            old = say(load(scratch), golden["input_ids"].tolist(), 0)
        if not torch.equal(old["logits"], said["logits"]):
            problems.append(f"{case.name}: config.v4.json means another model")
    return problems
