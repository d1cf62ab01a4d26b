"""Quantized Qwen2, Qwen3, GPT-NeoX and OPT, small and of random weights, opened by the clients that
know them; see quant_test.py, whose GPT-2 and Llama are tried in more ways.
"""

import unittest

from gptq_test import SAMPLES, weights
from quant_support import UNTRAINED, Models, installed, load, needs

import torch
import transformers

FAMILIES = ("qwen2", "qwen3", "neox", "opt")


class Families(Models):
    families = FAMILIES

    def check(self, found, model, plain, report, what):
        """Compares a client's layers, by name, with those of `sparse dequantize`."""
        for layer in self.layers(model, report):
            theirs = found(layer)
            self.assertSame(theirs, plain[f"{layer}.weight"].to(theirs.dtype), f"{what} {layer}")

    @needs("bitsandbytes", "accelerate")
    def test_bitsandbytes(self):
        import bitsandbytes

        def nf4(weight):
            return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)

        def int8(weight):
            return torch.ops.bitsandbytes.int8_vectorwise_dequant(weight.data, weight.SCB)

        for model in FAMILIES:
            for preset, read in (("bnb_nf4", nf4), ("bnb_int8", int8)):
                out, report, plain = self.make(model, preset)
                client = load(out)
                # Running it takes the scales off.
                found = lambda layer: read(client.get_submodule(layer).weight)
                self.check(found, model, plain, report, out.name)
                self.assertRuns(client)

    @needs("compressed_tensors")
    def test_compressed_tensors(self):
        for model in FAMILIES:
            out, report, plain = self.make(
                model, "rtn_int4", "--format", "compressed-tensors", "--group-size", 32
            )
            client = load(out)
            self.assertRuns(client)
            found = lambda layer: client.get_submodule(layer).weight
            self.check(found, model, plain, report, out.name)

    @needs("gptqmodel", "optimum", "accelerate")
    def test_gptqmodel(self):
        for model in FAMILIES:
            out, report, plain = self.make(
                model, "gptq_quality", "--samples", SAMPLES, "--group-size", 32
            )
            config = transformers.GPTQConfig(bits=4, backend="gptq_torch")
            client = load(
                out, quantization_config=config, dtype=torch.float32, device_map="cpu"
            )
            self.check(
                lambda layer: weights(client.get_submodule(layer)), model, plain, report, out.name
            )
            self.assertRuns(client)

    @needs("gptqmodel", "optimum", "accelerate")
    def test_awq(self):
        for model in ("qwen2", "qwen3", "opt"):
            out, report, plain = self.make(
                model, "awq_quality", "--samples", SAMPLES, "--group-size", 32
            )
            config = transformers.AwqConfig(bits=4, backend="torch_awq")
            client = load(
                out, quantization_config=config, dtype=torch.float32, device_map="cpu"
            )
            self.check(
                lambda layer: weights(client.get_submodule(layer)), model, plain, report, out.name
            )
            self.assertRuns(client)

    @needs("hqq")
    def test_hqq(self):
        from load_hqq import load_hqq

        for model in FAMILIES:
            out, report, plain = self.make(model, "hqq_4bit")
            client = load_hqq(out, compute_dtype=torch.float32, device="cpu").eval()
            found = lambda layer: client.get_submodule(layer).dequantize().half()
            for layer in self.layers(model, report):
                ours = plain[f"{layer}.weight"].half()
                torch.testing.assert_close(found(layer), ours, rtol=1e-3, atol=1e-6)
            self.assertPerplexity(client, out, UNTRAINED)

    @unittest.skipUnless(installed("optimum"), "no optimum")
    @needs("optimum.quanto", "accelerate")
    def test_quanto(self):
        from optimum.quanto import QuantizedModelForCausalLM

        # An untied GPT-NeoX is refused: the library does not find its head.
        for model in ("qwen2", "qwen3", "opt"):
            out, report, plain = self.make(model, "quanto_int4")
            client = QuantizedModelForCausalLM.from_pretrained(str(out))._wrapped
            for layer in self.layers(model, report):
                theirs = client.get_submodule(layer).weight.dequantize().float()
                # To the last place of bfloat16, in which the library multiplies and then subtracts.
                ours = plain[f"{layer}.weight"]
                place = 2**-8 * ours.abs().max().item()
                torch.testing.assert_close(theirs, ours, rtol=0, atol=place)
            self.assertRuns(client)


if __name__ == "__main__":
    unittest.main()
