"""GPTQ and AWQ checkpoints, opened by gptqmodel, through transformers where that can.

The weights compared are those that gptqmodel's own unpacking computes, and its plain torch kernels
multiply with them. (On a CPU it would otherwise choose kernels that round weights to bfloat16.)
"""

import json
import shutil
import unittest

from quant_support import Models, load, needs

import safetensors.torch
import torch
import transformers

# Windows of calibration text: what is compared does not depend on how good the weights are.
SAMPLES = 8
GROUPS = {32: ["gptq"], 64: ["gptq_v2"], 128: ["gptq"], -1: ["gptq_v2"]}


@needs("gptqmodel", "optimum", "accelerate")
class GptqModel(Models):
    def opened(self, folder):
        import gptqmodel

        config = json.loads((folder / "config.json").read_text())
        method = config["quantization_config"]["quant_method"]
        if config["model_type"] == "gpt2":
            # transformers 5.24 fills `c_proj.weight` of every GPT-2 with random numbers before it
            # loads a file, and gptqmodel's layers have none. By itself gptqmodel runs in 16 bits.
            return gptqmodel.GPTQModel.load(
                folder, backend=gptqmodel.BACKEND.GPTQ_TORCH, dtype=torch.float16, device="cpu"
            ).model
        wanted = {
            "gptq": transformers.GPTQConfig(
                bits=config["quantization_config"]["bits"], backend="gptq_torch"
            ),
            "awq": transformers.AwqConfig(bits=4, backend="torch_awq"),
        }
        return load(
            folder, quantization_config=wanted[method], dtype=torch.float32, device_map="cpu"
        )

    def check(self, model, preset, *arguments):
        """Returns the client's layers by name."""
        out, report, plain = self.make(model, preset, "--samples", SAMPLES, *arguments)
        client = self.opened(out)
        found = {
            name: module for name, module in client.named_modules() if hasattr(module, "qweight")
        }
        self.assertEqual(len(found), report["layers"])
        for name, module in found.items():
            theirs = weights(module)
            ours = self.ours(model, plain, name).to(theirs.dtype)
            self.assertSame(theirs, ours, f"{out.name} {name}")
        self.assertPerplexity(client, out)
        return found

    def test_gptq_of_either_version_means_the_same(self):
        for model in self.originals:
            for size, versions in GROUPS.items():
                # All pairs where widths are odd, each version once elsewhere.
                for version in ("gptq", "gptq_v2") if model == "llama" else versions:
                    with self.subTest(model=model, version=version, group_size=size):
                        self.check(
                            model, "gptq_quality", "--format", version, "--group-size", size
                        )

    def test_other_widths_of_codes(self):
        for bits, *more in (
            (8,), (8, "--zero-points"), (3,), (2, "--zero-points"),
            (4, "--zero-points", "--format", "gptq", "--max-shard-bytes", 200_000),
        ):
            with self.subTest(bits=bits, more=more):
                arguments = ("--bits", bits, "--group-size", 64, *more)
                self.check("llama", "gptq_quality", *arguments)

    def test_groups_may_be_of_scattered_inputs(self):
        for model in self.originals:
            found = self.check(model, "gptq_quality", "--act-order", "--group-size", 32)
            groups = next(iter(found.values())).g_idx
            self.assertFalse(torch.equal(groups, groups.sort().values))

    def test_the_larger_presets_load(self):
        for preset in ("gptq_balanced", "gptq_size"):
            self.check("gpt2", preset)
        self.check("llama-trained", "awq_balanced")

    def test_awq_means_the_same(self):
        for model in ("llama", "llama-trained"):
            for size in GROUPS:
                with self.subTest(model=model, group_size=size):
                    self.check(model, "awq_quality", "--group-size", size)

    def test_zero_points_of_zero(self):
        """Groups without negative weights have one, which version 1 of GPTQ cannot store."""
        source = self.folder / "positive"
        shutil.copytree(self.originals["llama-trained"], source)
        file = source / "model.safetensors"
        stored = safetensors.torch.load_file(file)
        name = "model.layers.1.mlp.gate_proj"
        stored[f"{name}.weight"] = stored[f"{name}.weight"].abs()
        safetensors.torch.save_file(stored, file, metadata={"format": "pt"})
        self.originals["positive"] = source
        try:
            for format in ("awq", "gptq_v2"):
                arguments = ("--format", format, "--group-size", 32)
                layer = self.check("positive", "awq_quality", *arguments)[name]
                self.assertTrue((zeros(layer) == 0).any())
        finally:
            del self.originals["positive"]


def zeros(module):
    """Zero points, in whatever order the format has them."""
    shifts = torch.arange(0, 32, 4)
    return module.qzeros.unsqueeze(-1) >> shifts & 15


def weights(module):
    """What a layer of gptqmodel multiplies with, outputs first."""
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    if hasattr(module, "dequantize_weight"):
        return module.dequantize_weight().t()
    stored = (module.qweight, module.qzeros, module.scales)
    return dequantize_gemm(*stored, module.bits, module.group_size).t()


if __name__ == "__main__":
    unittest.main()
