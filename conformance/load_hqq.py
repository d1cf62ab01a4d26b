"""Opens a folder that `sparse quantize --preset hqq_4bit` wrote, as a model of the hqq library.

The library's own loader reads pickled weights (`qmodel.pt`); the layers in the folder are encoded
as it encodes them for safetensors, which it writes but does not read.

    from load_hqq import load_hqq
    model = load_hqq("folder", compute_dtype=torch.float16, device="cuda")
"""

from collections import defaultdict
from pathlib import Path

from accelerate import init_empty_weights
from hqq.core.quantize import HQQLinear
from hqq.models.hf.base import AutoHQQHFModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM


class SafetensorsHQQ(AutoHQQHFModel):
    @classmethod
    def create_model(cls, folder, kwargs):
        with init_empty_weights():
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), **kwargs)

    @classmethod
    def patch_model(cls, model, others, linears, *rest, **options):
        # GPT-2's layers are no nn.Linear, so they are replaced with the others.
        def once(module, params):
            return module if isinstance(module, HQQLinear) else linears(module, params)

        super().patch_model(model, others, once, *rest, **options)

    @classmethod
    def get_weight_file(cls, folder):
        return str(next(Path(folder).glob("*.safetensors")))

    @classmethod
    def load_weights(cls, folder, map_location=None):
        weights = defaultdict(dict)
        for file in Path(folder).glob("*.safetensors"):
            for name, tensor in load_file(file).items():
                module, _, key = name.rpartition(".")
                weights[module][key] = tensor
        # A head that is the embedding is not stored twice.
        embedding = [name for name in weights if name.endswith(("embed_tokens", "wte", "embed_in"))]
        # GPT-NeoX's head is called embed_out in files, and lm_head in models.
        head = weights.get("lm_head") or weights.get("embed_out") or weights[embedding[0]]
        for name in ("lm_head", "embed_out"):
            weights[name] = head
        return weights


def load_hqq(folder, **arguments):
    return SafetensorsHQQ.from_quantized(str(folder), cache_dir=None, **arguments)
