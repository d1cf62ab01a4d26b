#!/usr/bin/env python3
"""Converts a GPT-2 or Llama checkpoint to a GGUF file that llama.cpp loads.

    to_gguf.py CHECKPOINT OUT.gguf [--type f32|f16|bf16]

CHECKPOINT is a folder with config.json, *.safetensors and tokenizer.json (byte-level BPE).
Vectors, norms and learned positions stay f32, as llama.cpp's own converter keeps them.
What this cannot convert faithfully it refuses.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy as np

import checkpoint

TYPES = {
    "f32": ("F32", gguf.LlamaFileType.ALL_F32),
    "f16": ("F16", gguf.LlamaFileType.MOSTLY_F16),
    "bf16": ("BF16", gguf.LlamaFileType.MOSTLY_BF16),
}

GPT2_NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "lm_head": "output",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}

LLAMA_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def refuse_unless(holds, what):
    if not holds:
        raise SystemExit(f"cannot convert: {what}")


def gguf_name(name, names, block):
    """GGUF's name of a tensor; `block` is what precedes a layer's number."""
    module, _, kind = name.rpartition(".")
    if not module.startswith(block):
        return f"{names[module]}.{kind}"
    layer, _, module = module.removeprefix(block).partition(".")
    return f"blk.{layer}.{names[module]}.{kind}"


def permuted(array, heads):
    """Rows of q or k reordered per head: halves interleaved, as llama.cpp rotates them."""
    rows = array.shape[0]
    return array.reshape(heads, 2, rows // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(
        array.shape
    )


class Gpt2:
    arch = "gpt2"

    def __init__(self, config):
        refuse_unless(config["activation_function"] == "gelu_new", "activation is not gelu_new")
        refuse_unless(not config.get("scale_attn_by_inverse_layer_idx"), "scaled attention")
        self.tied = config.get("tie_word_embeddings", True)
        self.config = config

    def describe(self, writer):
        config = self.config
        writer.add_context_length(config["n_positions"])
        writer.add_embedding_length(config["n_embd"])
        writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
        writer.add_block_count(config["n_layer"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])

    def convert(self, name, array):
        name = name.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            return None
        if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            array = array.T  # Conv1D keeps its weights [in, out]
        return gguf_name(name, GPT2_NAMES, "h."), array


class Llama:
    arch = "llama"

    def __init__(self, config):
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        refuse_unless(kind == "default", f"rotary positions of type {kind}")
        refuse_unless(config["hidden_act"] == "silu", "activation is not silu")
        self.theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads") or self.heads
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.heads
        self.tied = config.get("tie_word_embeddings", False)
        self.config = config

    def describe(self, writer):
        config = self.config
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_key_length(self.head_dim)
        writer.add_value_length(self.head_dim)
        writer.add_rope_dimension_count(self.head_dim)
        writer.add_rope_freq_base(self.theta)
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_vocab_size(config["vocab_size"])

    def convert(self, name, array):
        if name.endswith(".rotary_emb.inv_freq"):
            return None
        for projection, heads in (("q_proj", self.heads), ("k_proj", self.kv_heads)):
            if f".{projection}." in name:
                array = permuted(array, heads)
        return gguf_name(name, LLAMA_NAMES, "model.layers."), array


ARCHITECTURES = {"gpt2": Gpt2, "llama": Llama}


def write_tokenizer(writer, folder, config):
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model, pre = tokenizer["model"], tokenizer["pre_tokenizer"]
    plain = pre["type"] == "ByteLevel" and pre["use_regex"] and not pre["add_prefix_space"]
    refuse_unless(model["type"] == "BPE" and plain, "tokenizer is not GPT-2's byte-level BPE")
    refuse_unless(tokenizer["normalizer"] is None, "tokenizer with a normalizer")
    special = (tokenizer["post_processor"] or {}).get("special_tokens")
    refuse_unless(not special, "tokenizer that adds special tokens")

    size = config["vocab_size"]
    refuse_unless(max(model["vocab"].values()) < size, "token ids beyond vocab_size")
    # llama.cpp takes the width of the head from this list: ids without a token need a name.
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    for token, number in model["vocab"].items():
        tokens[number], types[number] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], kind
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(False)
    for key, add in (
        ("bos_token_id", writer.add_bos_token_id),
        ("eos_token_id", writer.add_eos_token_id),
    ):
        if config.get(key) is not None:
            add(config[key])


def convert(folder, out, kind):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = config["model_type"]
    refuse_unless(architecture in ARCHITECTURES, f"architecture {architecture}")
    model = ARCHITECTURES[architecture](config)
    stored, file_type = TYPES[kind]

    writer = gguf.GGUFWriter(out, model.arch)
    writer.add_name(folder.name)
    writer.add_file_type(file_type)
    model.describe(writer)
    write_tokenizer(writer, folder, config)
    for name, dtype, array in checkpoint.tensors(folder):
        converted = model.convert(name, array)
        if converted is None or (converted[0] == "output.weight" and model.tied):
            continue
        name, array = converted
        values = np.ascontiguousarray(checkpoint.to_f32(dtype, array))
        small = values.ndim == 1 or name == "position_embd.weight"
        data = checkpoint.from_f32("F32" if small else stored, values)
        if data.dtype == np.uint16:
            data = data.view(np.uint8)
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=TYPES, default="f16")
    args = parser.parse_args()
    partial = args.out.with_suffix(".partial")
    convert(args.checkpoint, partial, args.type)
    partial.rename(args.out)


if __name__ == "__main__":
    main()
