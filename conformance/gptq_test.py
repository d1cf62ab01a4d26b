"""GPTQ and AWQ checkpoints, opened by gptqmodel, through transformers where that can.

The weights compared are those that gptqmodel's own unpacking computes, and its plain torch kernels
multiply with them. (On a CPU it would otherwise choose kernels that round weights to bfloat16.)
"""

import json
import unittest

from quant_support import Models, load, needs

import torch
import transformers


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
            "gptq": transformers.GPTQConfig(bits=4, backend="gptq_torch"),
            "awq": transformers.AwqConfig(bits=4, backend="torch_awq"),
        }
        return load(
            folder, quantization_config=wanted[method], dtype=torch.float32, device_map="cpu"
        )

    def check(self, model, preset, *arguments):
        """Returns the client's layers by name."""
        out, report, plain = self.make(model, preset, *arguments)
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


def weights(module):
    """What a layer of gptqmodel multiplies with, outputs first."""
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    if hasattr(module, "dequantize_weight"):
        return module.dequantize_weight().t()
    stored = (module.qweight, module.qzeros, module.scales)
    return dequantize_gemm(*stored, module.bits, module.group_size).t()


if __name__ == "__main__":
    unittest.main()
