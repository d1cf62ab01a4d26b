"""Models to quantize, and what a client must get out of the result.

The models are the repository's GPT-2 and Llama, both trained, and a Llama of random weights in
awkward shapes; tests that ask for them get other families of random weights besides. Clients load what `sparse quantize` wrote on the CPU; their weights are compared
with those of `sparse dequantize`, their perplexity with that of `sparse eval`.
"""

import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile
import unittest
import warnings

from support import BASE, TINY_LLAMA, sparse

# Optimum-quanto looks for ninja on the path.
os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ.setdefault("DISABLE_CUDA", "1")
# Gptqmodel has torch compile its unpacking anew for every layer, which takes most of the time.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.simplefilter("ignore")

import safetensors.torch
import torch
import transformers

from golden_perplexity import Scorer, gptq_paper
from golden_trained import SLICE

transformers.logging.set_verbosity_error()

# What perplexities are taken of: disjoint windows of this many tokens, from the text's beginning.
TEXT, TOKENS, CONTEXT = SLICE.with_name("wikitext2_slice.txt"), 2048, 128
# How far a client's perplexity may be from ours. The model of random weights is unsure of every
# token: that a client rounds weights to bfloat16, or activations to 8 bits, moves it by more.
TOLERANCE, UNTRAINED = 1e-3, 5e-3


def installed(name):
    return importlib.util.find_spec(name) is not None


def needs(*names):
    missing = [name for name in names if not installed(name)]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


LAYERS = {
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "llama": [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ],
}


LAYERS["qwen2"] = LAYERS["qwen3"] = LAYERS["smollm3"] = LAYERS["llama"]
LAYERS["neox"] = [
    "attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h",
]
LAYERS["opt"] = [
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2",
]
PREFIXES = {
    "gpt2": "transformer.h", "neox": "gpt_neox.layers", "opt": "model.decoder.layers",
}

# What they have in common, in each family's words.
SHAPE = {
    "vocab_size": 1024,
    "hidden_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
GROUPED = {**SHAPE, "intermediate_size": 320, "num_key_value_heads": 2}
# Widths that are no multiples of 256, grouped heads, heads of their own. They are multiples of 64:
# on a CPU bitsandbytes 0.50 does not read back what it quantizes itself where blocks cross rows.
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, head_dim=64),
    # Long enough to have a layer without positions.
    "smollm3": lambda: transformers.SmolLM3Config(
        **{**GROUPED, "num_hidden_layers": 4, "pad_token_id": 0}
    ),
    "neox": lambda: transformers.GPTNeoXConfig(**SHAPE, intermediate_size=320),
    "opt": lambda: transformers.OPTConfig(
        **SHAPE, ffn_dim=320, word_embed_proj_dim=192, pad_token_id=1
    ),
}


def make_random(family, folder):
    """A small model of random weights, in several shards."""
    torch.manual_seed(7)
    config = CONFIGS[family]()
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                # Heavier tails than a normal distribution's, as trained layers have.
                weight.copy_(weight * (1 + 2 * weight.abs() / weight.abs().mean()))
    model.save_pretrained(folder, max_shard_size="400KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BASE / name, folder / name)


class Models(unittest.TestCase):
    """The originals, in a folder that every test of a class shares."""

    # Of random weights, beside the Llama.
    families = ()

    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.scratch.name)
        cls.originals = {
            "gpt2": BASE,
            "llama": cls.folder / "llama",
            "llama-trained": TINY_LLAMA,
        }
        for family in ("llama", *cls.families):
            cls.originals[family] = cls.folder / family
            make_random(family, cls.originals[family])

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def make(self, model, preset, *arguments):
        """A quantized folder, its report, and the weights that it stands for by layer."""
        words = [pathlib.Path(str(word)).name for word in arguments]
        out = self.folder / "-".join([model, preset, *words]).replace("--", "")
        source = self.originals[model]
        report = sparse("quantize", source, "--preset", preset, "-o", out, *arguments)
        guess = sparse("quantize", source, "--estimate", "--preset", preset, *arguments)
        size = sum(file.stat().st_size for file in out.iterdir())
        self.assertEqual(report["quantized_bytes"], size)
        guessed = guess["presets"][0]["quantized_bytes"]
        self.assertLess(abs(guessed - size), 0.01 * size, "the estimate is off")
        plain = out.with_name(out.name + "-plain")
        sparse("dequantize", out, "-o", plain)
        return out, report, tensors(plain)

    def layers(self, model, report):
        """The names of all layers that a report of `sparse quantize` counts."""
        family = model.split("-")[0]
        prefix = PREFIXES.get(family, "model.layers")
        blocks, odd = divmod(report["layers"], len(LAYERS[family]))
        self.assertEqual(odd, 0)
        return [f"{prefix}.{i}.{name}" for i in range(blocks) for name in LAYERS[family]]

    def original(self, model, layer):
        """A layer's weights, outputs first."""
        weight = tensors(self.originals[model])[f"{layer}.weight"]
        return weight.t().contiguous() if model == "gpt2" else weight

    def ours(self, model, plain, layer):
        weight = plain[f"{layer}.weight"]
        return weight.t().contiguous() if model == "gpt2" else weight

    def assertSame(self, theirs, ours, what):
        theirs, ours = theirs.detach().float(), ours.float()
        self.assertEqual(theirs.shape, ours.shape, what)
        off = (theirs != ours).sum().item()
        worst = (theirs - ours).abs().max().item()
        self.assertEqual(off, 0, f"{what}: {off} of {ours.numel()} differ, by up to {worst}")

    def assertRuns(self, model):
        ids = torch.arange(24).unsqueeze(0)
        with torch.no_grad():
            logits = model(ids).logits
        self.assertTrue(torch.isfinite(logits.float()).all())

    def assertPerplexityOfWeights(self, model, out, weights):
        """The perplexity of the weights that a client computes (by layer, outputs first) is that of
        `sparse eval`. They are multiplied in float32: a client's own kernels may round to bfloat16.
        """
        plain = out.with_name(out.name + "-plain")
        client = load(plain, dtype=torch.float32)
        for layer, theirs in weights.items():
            theirs = theirs.detach().float()
            client.get_submodule(layer).weight.data = theirs.t() if model == "gpt2" else theirs
        # `sparse dequantize` rounds as the client does, what runs the codes themselves does not.
        self.assertPerplexity(client, plain)
        self.assertPerplexity(client, out, UNTRAINED if model in CONFIGS else TOLERANCE)

    def assertRunsAlike(self, model, client, out):
        """What a client computes itself, in its own types, has the perplexity of `sparse eval`: of
        a trained model, as one of random weights is unsure of every token."""
        if model not in CONFIGS:
            self.assertPerplexity(client, out)

    def assertPerplexity(self, client, folder, tolerance=TOLERANCE):
        """A client's perplexity, that of a model which it loaded, is that of `sparse eval`."""
        # Not AutoTokenizer: for Qwen 2 it splits text as Qwen 2 does, whatever the file says.
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        theirs = gptq_paper(Beginning(client, tokenizer), [TEXT.read_text()], CONTEXT, CONTEXT)
        asked = ["--protocol", "gptq-paper", "--context", CONTEXT, "--max-tokens", TOKENS]
        ours = sparse("eval", folder, "--text", TEXT, *asked)
        self.assertEqual(ours["scored_tokens"], theirs["scored_tokens"])
        off = abs(theirs["perplexity"] / ours["perplexity"] - 1)
        self.assertLessEqual(off, tolerance, f"{folder.name}: {theirs} for {ours}")


class Beginning(Scorer):
    """The perplexity of a text's beginning."""

    def ids(self, text):
        return super().ids(text)[:TOKENS]


def tensors(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found.update(safetensors.torch.load_file(file))
    return found


def load(folder, **arguments):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **arguments).eval()
