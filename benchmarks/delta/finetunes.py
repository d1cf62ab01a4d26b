#!/usr/bin/env python3
"""Trains more fine-tune pairs from the fixture checkpoints.

Each pair is a folder as `transformers` saves it, made by a real optimizer on a
real text: long and short fine-tunes, RL-like ones that move few weights, merged
LoRAs of several ranks and merge precisions, grown vocabularies, other
architectures, and copies whose layout changed but whose weights did not.

    finetunes.py --fixtures DIR --out DIR [--only NAME]

Needs torch, transformers 5, peft, safetensors and numpy. Runs are seeded; the
weights still differ between torch versions and CPUs, as sums are reordered.
"""
import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

BATCH, BLOCK = 8, 128
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
LORA_TARGETS = {
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


class Places:
    """Where inputs are read and pairs are written."""

    def __init__(self, fixtures, out):
        self.fixtures, self.out = Path(fixtures), Path(out)
        self.tokens = {}

    def base(self, name):
        """A base is a fixture, or a checkpoint that an earlier recipe made."""
        fixture = self.fixtures / "checkpoints" / name
        made = self.out / name
        if not fixture.exists() and not made.exists():
            RECIPES[name](self, name)
        return fixture if fixture.exists() else made

    def text(self, *files):
        """The token ids of texts, encoded once with the fixtures' tokenizer."""
        if files not in self.tokens:
            tokenizer = AutoTokenizer.from_pretrained(self.base("gpt2-base-bf16"))
            text = "\n".join((self.fixtures / "text" / file).read_text() for file in files)
            self.tokens[files] = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
        return self.tokens[files]


def weights(folder):
    """All tensors of a checkpoint folder by name."""
    tensors = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        tensors.update(load_file(file))
    return tensors


def unchanged(base, fine):
    """The fraction of weights whose bits are equal, over tensors present in both."""
    as_int = {2: torch.int16, 4: torch.int32}
    same = total = 0
    for name, b in base.items():
        f = fine.get(name)
        if f is None or f.dtype != b.dtype or f.shape != b.shape:
            continue
        kind = as_int[b.element_size()]
        same += int((b.contiguous().view(kind) == f.contiguous().view(kind)).sum())
        total += b.numel()
    return same / total if total else float("nan")


def batches(tokens, seed):
    """Endless random windows of the text."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        at = torch.randint(0, len(tokens) - BLOCK - 1, (BATCH,), generator=generator)
        yield torch.stack([tokens[i : i + BLOCK] for i in at])


def train(model, tokens, lr, steps, seed=1, enough=None, decay=True):
    """AdamW with linear decay to zero; `enough(model)` ends a run early."""
    torch.manual_seed(seed)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr)
    stream = batches(tokens, seed)
    done = 0
    for done in range(1, steps + 1):
        if decay:
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - (done - 1) / steps)
        batch = next(stream)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if enough and enough(model):
            break
    return done, float(loss.detach())


def rounded_unchanged(model, base, dtype):
    """`unchanged` of a model still in training, as if it were saved now."""
    return unchanged(base, {k: v.detach().to(dtype) for k, v in model.state_dict().items()})


def load(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def save(places, name, model, dtype, base):
    """Casts, saves with the tokenizer, and prints how much stayed as it was."""
    folder = places.out / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(places.base("gpt2-base-bf16") / file, folder)
    report(name, base, folder)


def report(name, base, folder, note=""):
    if base is None:
        print(f"{name:32} base", flush=True)
        return
    same = unchanged(weights(base), weights(folder))
    print(f"{name:32} from {Path(base).name:20} unchanged {same:7.2%} {note}", flush=True)


def full(base, dtype="bf16", lr=2e-5, steps=100, stop=None, decay=True, start=None, grow=0, pure=False):
    """A fine-tune of every weight.

    `stop`: end once at most this fraction is unchanged. `start`: begin from these
    (more precise) weights, of which `base` is the rounding. `grow`: new vocabulary
    rows. `pure`: the optimizer works on the low-precision weights themselves.
    """

    def recipe(places, name):
        folder = places.base(base)
        kind = DTYPES[dtype]
        model = load(places.base(start) if start else folder, kind if pure else torch.float32)
        if grow:
            model.resize_token_embeddings(model.config.vocab_size + grow)
        reference = weights(folder)
        enough = stop and (lambda m: rounded_unchanged(m, reference, kind) <= stop)
        done, loss = train(model, places.text("shakespeare.txt"), lr, steps, enough=enough, decay=decay)
        print(f"{name:32} {done} steps, lr {lr:g}, loss {loss:.3f}", flush=True)
        save(places, name, model, kind, folder)

    return recipe


def lora(base, rank, dtype="bf16", lr=5e-4, steps=60, merge="fp32"):
    """A LoRA on every linear layer of the blocks, merged into weights of precision `merge`.

    Merged in fp32, the sum is rounded once, on saving. Merged in bf16, the factors,
    their product and the sum are each rounded.
    """

    def recipe(places, name):
        from peft import LoraConfig, PeftModel, get_peft_model

        folder = places.base(base)
        torch.manual_seed(rank)
        family = base.split("-")[0]
        config = LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            target_modules=LORA_TARGETS[family],
            fan_in_fan_out=family == "gpt2",
            task_type="CAUSAL_LM",
        )
        model = get_peft_model(load(folder), config)
        done, loss = train(model, places.text("shakespeare.txt"), lr, steps)
        print(f"{name:32} {done} steps, lr {lr:g}, loss {loss:.3f}", flush=True)
        if merge != "fp32":
            adapter = places.out / f".{name}-adapter"
            model.save_pretrained(adapter)
            low = load(folder, DTYPES[merge])
            model = PeftModel.from_pretrained(low, adapter, autocast_adapter_dtype=False)
            model.to(DTYPES[merge])
            shutil.rmtree(adapter)
        save(places, name, model.merge_and_unload(), DTYPES[dtype], folder)

    return recipe


def scratch(config, steps=200, lr=2e-3):
    """A small base of another architecture, trained from random weights."""

    def recipe(places, name):
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
        done, loss = train(model, places.text("wikitext2_valid.txt", "shakespeare.txt"), lr, steps)
        print(f"{name:32} {done} steps, lr {lr:g}, loss {loss:.3f}", flush=True)
        save(places, name, model, torch.bfloat16, None)

    return recipe


def cast_fp16(places, name):
    """The fp32 base rounded to fp16, by the fixtures' own script."""
    script = places.fixtures / "cast_fp16.py"
    subprocess.run([sys.executable, script, places.out / name], check=True)
    report(name, None, None)


def copy_of(base, change):
    """A copy of a checkpoint with the same weights and other files."""

    def recipe(places, name):
        source, folder = places.base(base), places.out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in source.iterdir():
            if file.suffix != ".safetensors":
                shutil.copy(file, folder)
        change(weights(source), folder)
        with safe_open(next(iter(sorted(folder.glob("*.safetensors")))), "pt") as opened:
            note = f"{len(list(opened.keys()))} tensors in the first file"
        report(name, source, folder, note)

    return recipe


def reshard(tensors, folder, shards=4):
    """Splits the tensors in name order into shards of about equal size."""
    total = sum(t.nbytes for t in tensors.values())
    parts, at = [{} for _ in range(shards)], 0
    for name, tensor in sorted(tensors.items()):
        parts[min(at * shards // total, shards - 1)][name] = tensor
        at += tensor.nbytes
    places = {}
    for i, part in enumerate(parts, 1):
        file = f"model-{i:05}-of-{shards:05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        places.update({name: file for name in part})
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def rename(tensors, folder):
    """Drops the `transformer.` prefix where there is one, adds it where not."""
    prefix = "transformer."

    def other(name):
        return name[len(prefix) :] if name.startswith(prefix) else prefix + name

    renamed = {other(name): tensor for name, tensor in tensors.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})


NEOX = dict(
    model_type="gpt_neox", vocab_size=4096, hidden_size=192, num_hidden_layers=4,
    num_attention_heads=6, intermediate_size=768, max_position_embeddings=256,
    bos_token_id=0, eos_token_id=0,
)  # fmt: skip
QWEN2 = dict(
    model_type="qwen2", vocab_size=4096, hidden_size=224, num_hidden_layers=5,
    num_attention_heads=7, num_key_value_heads=1, intermediate_size=608,
    max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
)  # fmt: skip

RECIPES = {
    "gpt2-rl-bf16": full("gpt2-base-bf16", lr=1e-6, steps=60, stop=0.95, decay=False),
    "gpt2-rl-tiny-bf16": full("gpt2-base-bf16", lr=2e-8, steps=60, stop=0.997, decay=False),
    "gpt2-rl-master-bf16": full("gpt2-base-bf16", lr=1e-6, steps=60, stop=0.95, decay=False, start="gpt2-base-fp32"),
    "gpt2-lora-r4-bf16": lora("gpt2-base-bf16", 4),
    "gpt2-lora-r16-bf16": lora("gpt2-base-bf16", 16),
    "gpt2-lora-r16-mergedbf16-bf16": lora("gpt2-base-bf16", 16, merge="bf16"),
    "gpt2-lora-r64-bf16": lora("gpt2-base-bf16", 64),
    "gpt2-base-fp16": cast_fp16,
    "gpt2-lora-r8-fp16": lora("gpt2-base-fp16", 8, dtype="fp16"),
    "gpt2-lora-r8-fp32": lora("gpt2-base-fp32", 8, dtype="fp32"),
    "gpt2-base-bf16-resharded": copy_of("gpt2-base-bf16", reshard),
    "gpt2-base-bf16-renamed": copy_of("gpt2-base-bf16", rename),
    "gpt2-grown-bf16": full("gpt2-base-bf16", steps=60, grow=64),
    "gpt2-purebf16-bf16": full("gpt2-base-bf16", pure=True),
    "gpt2-long-bf16": full("gpt2-base-bf16", lr=1e-4, steps=400, stop=0.05, decay=False),
    "llama-rl-bf16": full("llama-base-bf16", lr=1e-6, steps=60, stop=0.95, decay=False),
    "llama-lora-r8-bf16": lora("llama-base-bf16", 8),
    "llama-long-bf16": full("llama-base-bf16", lr=1e-4, steps=250, stop=0.05, decay=False),
    "neox-base-bf16": scratch(NEOX),
    "neox-sft-bf16": full("neox-base-bf16"),
    "qwen2-base-bf16": scratch(QWEN2),
    "qwen2-sft-bf16": full("qwen2-base-bf16"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fixtures", required=True, help="folder with checkpoints/ and text/")
    parser.add_argument("--out", required=True, help="folder to write the pairs into")
    parser.add_argument("--only", choices=sorted(RECIPES), help="make this one")
    arguments = parser.parse_args()
    places = Places(arguments.fixtures, arguments.out)
    places.out.mkdir(parents=True, exist_ok=True)
    for name in [arguments.only] if arguments.only else RECIPES:
        began = time.time()
        RECIPES[name](places, name)
        print(f"{name:32} {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
