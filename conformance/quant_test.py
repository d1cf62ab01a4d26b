"""What `sparse quantize` writes, opened by the libraries that people run it with.

Every test quantizes a small model, lets the client load it on the CPU, and compares the weights
that the client computes with those that `sparse dequantize` does, bit for bit. A client that is
not installed skips its tests; `run.sh` installs those of `requirements-quant.txt`.
"""

import json
import unittest

from quant_support import LAYERS, PREFIXES, TOLERANCE, UNTRAINED, Models, installed, load, needs, tensors
from support import BASE

import numpy
import torch


@needs("bitsandbytes", "accelerate")
class Bitsandbytes(Models):
    def test_nf4_loads_and_means_the_same(self):
        import bitsandbytes

        for model in self.originals:
            for preset in ("bnb_nf4", "bnb_nf4_plain"):
                out, report, plain = self.make(model, preset)
                loaded = load(out)
                weights = {}
                for layer in self.layers(model, report):
                    weight = loaded.get_submodule(layer).weight
                    weights[layer] = theirs = bitsandbytes.functional.dequantize_4bit(
                        weight.data, weight.quant_state
                    )
                    ours = self.ours(model, plain, layer).to(theirs.dtype)
                    self.assertSame(theirs, ours, f"{preset} {layer}")
                # Last: where the CPU has AVX-512 for bf16, running packs the codes otherwise.
                self.assertRuns(loaded)
                self.assertRunsAlike(model, loaded, out)
                self.assertPerplexityOfWeights(model, out, weights)

    def test_nf4_codes_are_the_librarys(self):
        import bitsandbytes

        for model in ("gpt2", "llama"):
            for preset, nested in (("bnb_nf4", True), ("bnb_nf4_plain", False)):
                out, report, _ = self.make(model, preset, "--force")
                stored = tensors(out)
                for layer in self.layers(model, report):
                    codes, state = bitsandbytes.functional.quantize_4bit(
                        self.original(model, layer), quant_type="nf4", compress_statistics=nested
                    )
                    self.assertSame(codes, stored[f"{layer}.weight"], layer)
                    self.assertSame(state.absmax, stored[f"{layer}.weight.absmax"], layer)
                    if nested:
                        outer = stored[f"{layer}.weight.nested_absmax"]
                        table = stored[f"{layer}.weight.nested_quant_map"]
                        self.assertSame(state.state2.code, table, layer)
                        # The mean that was taken off depends on the order of summation.
                        torch.testing.assert_close(state.state2.absmax, outer, rtol=1e-6, atol=0)

    def test_int8_loads_and_is_the_librarys(self):
        import bitsandbytes

        for model in self.originals:
            out, report, plain = self.make(model, "bnb_int8")
            loaded = load(out)
            self.assertRuns(loaded)
            self.assertRunsAlike(model, loaded, out)
            stored = tensors(out)
            weights = {}
            for layer in self.layers(model, report):
                weight = loaded.get_submodule(layer).weight
                scale = weight.SCB if weight.SCB is not None else stored[f"{layer}.SCB"]
                weights[layer] = theirs = torch.ops.bitsandbytes.int8_vectorwise_dequant(weight.data, scale)
                self.assertSame(theirs, self.ours(model, plain, layer), layer)
                codes, absmax, _ = bitsandbytes.functional.int8_vectorwise_quant(
                    self.original(model, layer).half()
                )
                self.assertSame(codes, stored[f"{layer}.weight"], layer)
                self.assertSame(absmax, stored[f"{layer}.SCB"], layer)
            self.assertPerplexityOfWeights(model, out, weights)


@needs("compressed_tensors")
class CompressedTensors(Models):
    def test_it_loads_and_means_the_same(self):
        for model in ("llama", "llama-trained"):
            for preset, *more in (
                ("rtn_int4",),
                ("rtn_int4", "--group-size", 32),
                ("rtn_int4", "--group-size", 64, "--max-shard-bytes", 100_000),
                ("rtn_int4", "--group-size", -1),
                ("rtn_int8",),
                ("gptq_quality",),
                ("awq_quality",),
            ):
                more = ("--format", "compressed-tensors", *more)
                out, report, plain = self.make(model, preset, *more)
                loaded = load(out)
                self.assertRuns(loaded)
                self.assertRunsAlike(model, loaded, out)
                weights = {}
                for layer in self.layers(model, report):
                    weights[layer] = theirs = loaded.get_submodule(layer).weight
                    ours = plain[f"{layer}.weight"].to(theirs.dtype)
                    self.assertSame(theirs, ours, f"{preset} {layer}")
                self.assertPerplexityOfWeights(model, out, weights)


@needs("hqq")
class Hqq(Models):
    def test_the_library_reads_it_and_would_have_written_it(self):
        from hqq.core.quantize import HQQLinear, Quantizer

        for model in self.originals:
            cases = [("hqq_4bit", 4), ("hqq_3bit", 3)]
            if model == "llama":
                cases += [
                    ("hqq_4bit", 2, "--bits", 2),
                    ("hqq_4bit", 8, "--bits", 8),
                    ("hqq_4bit", 4, "--group-size", 32),
                    ("hqq_4bit", 4, "--group-size", 128),
                ]
            for preset, bits, *more in cases:
                out, report, plain = self.make(model, preset, *more)
                stored = tensors(out)
                same = total = 0
                weights = {}
                for layer in self.layers(model, report):
                    state = {
                        name.removeprefix(layer + "."): tensor
                        for name, tensor in stored.items()
                        if name.startswith(layer + ".")
                    }
                    linear = HQQLinear(
                        None, None, compute_dtype=torch.float16, device="cpu", initialize=False
                    )
                    linear.load_state_dict(dict(state))
                    weights[layer] = theirs = linear.dequantize()
                    self.assertSame(theirs, self.ours(model, plain, layer), f"{preset} {layer}")
                    size = int(state["group_size"])
                    codes, meta = Quantizer.quantize(
                        self.original(model, layer),
                        nbits=bits,
                        group_size=size,
                        axis=1,
                        device="cpu",
                    )
                    same += (codes == state["W_q"]).sum().item()
                    total += codes.numel()
                    # The zero point is a mean of sums and powers: equal to its last places.
                    close = (meta["zero"].half() - state["zero"]).abs() <= 4e-3
                    self.assertGreater(close.float().mean().item(), 0.99, layer)
                self.assertGreater(same / total, 0.999, f"{model} {preset}: {same} of {total}")
                self.assertPerplexityOfWeights(model, out, weights)

    def test_the_library_runs_the_folder(self):
        from load_hqq import load_hqq

        for model in self.originals:
            for preset in ("hqq_4bit", "hqq_3bit"):
                out, _, _ = self.make(model, preset, "--force")
                client = load_hqq(out, compute_dtype=torch.float32, device="cpu").eval()
                self.assertPerplexity(client, out, UNTRAINED if model == "llama" else TOLERANCE)


@needs("optimum.quanto", "accelerate") if installed("optimum") else unittest.skip("no optimum")
class Quanto(Models):
    def test_it_loads_and_means_the_same(self):
        from optimum.quanto import QuantizedModelForCausalLM

        for model in ("llama", "llama-trained"):
            for preset in ("quanto_int8", "quanto_int4"):
                out, report, plain = self.make(model, preset)
                loaded = QuantizedModelForCausalLM.from_pretrained(str(out))._wrapped
                weights = {}
                for layer in self.layers(model, report):
                    weight = loaded.get_submodule(layer).weight
                    weights[layer] = theirs = weight.dequantize()
                    ours = plain[f"{layer}.weight"].to(theirs.dtype)
                    self.assertSame(theirs, ours, f"{preset} {layer}")
                    if preset == "quanto_int8":
                        # torch's kernel for these codes may crash where the file is mapped.
                        weight._data = weight._data.clone()
                self.assertRunsAlike(model, loaded, out)
                self.assertPerplexityOfWeights(model, out, weights)


# llama.cpp's names within a block, and around the blocks.
GGUF_NAMES = {
    "gpt2": (
        {
            "attn_norm": "ln_1", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj",
        },
        {
            "token_embd": "transformer.wte", "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
        },
    ),
    "llama": (
        {
            "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj",
            "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
            "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
        },
        {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"},
    ),
}


@needs("gguf")
class Gguf(Models):
    def test_the_library_reads_the_weights_and_the_tokenizer(self):
        import gguf

        for model in ("gpt2", "llama"):
            for preset in ("gguf_q4_0", "gguf_q8_0", "gguf_q4_k_m", "gguf_q6_k"):
                out, report, plain = self.make(model, preset)
                reader = gguf.GGUFReader(out / "model.gguf")
                theirs = {
                    tensor.name: torch.from_numpy(
                        gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()
                    )
                    for tensor in reader.tensors
                }
                blocks, around = GGUF_NAMES[model]
                stems = dict(around)
                for block in range(report["layers"] // len(LAYERS[model])):
                    for theirs_name, name in blocks.items():
                        stem = f"{PREFIXES.get(model, 'model.layers')}.{block}.{name}"
                        stems[f"blk.{block}.{theirs_name}"] = stem
                named = {f"{stem}.{kind}" for stem in stems for kind in ("weight", "bias")}
                self.assertEqual(set(theirs) - named, set())
                for theirs_name, tensor in theirs.items():
                    stem, kind = theirs_name.rsplit(".", 1)
                    ours = plain[f"{stems[stem]}.{kind}"]
                    if model == "gpt2" and stem.startswith("blk.") and ours.ndim == 2:
                        ours = ours.t().contiguous()
                    if stem.endswith(("attn_q", "attn_k")):
                        ours = interleaved(ours, heads=6 if stem.endswith("q") else 2)
                    self.assertSame(tensor, ours, f"{preset} {theirs_name}")
                tokens = reader.fields["tokenizer.ggml.tokens"]
                vocabulary = json.loads((BASE / "tokenizer.json").read_text())["model"]["vocab"]
                found = tokens.contents()
                for token, at in vocabulary.items():
                    if at < len(found):
                        self.assertEqual(found[at], token)

    def test_blocks_are_those_of_the_reference(self):
        import gguf

        kinds = {
            "gguf_q4_0": gguf.GGMLQuantizationType.Q4_0,
            "gguf_q8_0": gguf.GGMLQuantizationType.Q8_0,
        }
        for preset, kind in kinds.items():
            out, _, _ = self.make("llama", preset, "--force")
            reader = gguf.GGUFReader(out / "model.gguf")
            found = {tensor.name: tensor for tensor in reader.tensors}
            for name in ("gate", "up", "down"):
                weight = self.original("llama", f"model.layers.0.mlp.{name}_proj")
                expected = gguf.quants.quantize(weight.float().numpy(), kind)
                tensor = found[f"blk.0.ffn_{name}.weight"]
                self.assertEqual(tensor.tensor_type, kind)
                numpy.testing.assert_array_equal(tensor.data, expected)


def interleaved(weight, heads):
    rows, cols = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, cols)
    return halves.swapaxes(1, 2).reshape(rows, cols)


if __name__ == "__main__":
    unittest.main()
