"""The small models whose logits the engine is tested against: each architecture, each switch."""

import dataclasses

import transformers

VOCABULARY = 80
# Room for the text and for its greedy continuation.
POSITIONS = 64


@dataclasses.dataclass(frozen=True)
class Case:
    """A model to make: its configuration, and how its checkpoint is written."""

    name: str
    config: transformers.PreTrainedConfig
    dtype: str = "bfloat16"
    # Also write the configuration as transformers 4 did, as config.v4.json.
    v4: bool = False
    shard_size: str = "1GB"
    # As the first releases of the architecture were saved: see `golden_models.age`.
    aged: str | None = None
    # Stores a head of its own, though the configuration ties it to the embedding.
    head_beside: bool = False


def gpt2(**more):
    return transformers.GPT2Config(**{
        "vocab_size": VOCABULARY, "n_positions": POSITIONS, "n_embd": 24, "n_layer": 2,
        "n_head": 4, "bos_token_id": None, "eos_token_id": None, **more})


def llama_like(kind, **more):
    return kind(**{
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 40,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": POSITIONS, "bos_token_id": None, "eos_token_id": None,
        "pad_token_id": None, "tie_word_embeddings": False, **more})


def llama(**more):
    return llama_like(transformers.LlamaConfig, **more)


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


def neox(**more):
    return transformers.GPTNeoXConfig(**{
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": POSITIONS,
        "bos_token_id": None, "eos_token_id": None, **more})


def opt(**more):
    return transformers.OPTConfig(**{
        "vocab_size": VOCABULARY, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "word_embed_proj_dim": 32, "max_position_embeddings": POSITIONS,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": 1, **more})


def cases():
    mistral, qwen2, qwen3, smollm3 = (
        getattr(transformers, f"{name}Config") for name in ("Mistral", "Qwen2", "Qwen3", "SmolLM3"))
    return [
        Case("gpt2", gpt2(n_layer=3), "float32", v4=True),
        Case("gpt2-fp16", gpt2(), "float16"),
        Case("gpt2-inner-relu", gpt2(n_inner=40, activation_function="relu")),
        Case("gpt2-gelu", gpt2(activation_function="gelu")),
        Case("gpt2-quick-gelu", gpt2(activation_function="quick_gelu")),
        Case("gpt2-inverse-layer", gpt2(scale_attn_by_inverse_layer_idx=True, n_layer=3)),
        Case("gpt2-unscaled", gpt2(scale_attn_weights=False)),
        Case("gpt2-untied", gpt2(tie_word_embeddings=False)),
        Case("gpt2-aged-bare", gpt2(), aged="bare"),
        Case("gpt2-aged", gpt2(), "float16", aged="prefixed"),
        Case("llama", llama(), "float32", v4=True),
        Case("llama-tied", llama(tie_word_embeddings=True, num_key_value_heads=1), v4=True),
        Case("llama-head-beside", llama(tie_word_embeddings=True), head_beside=True),
        Case("llama-fp16", llama(num_key_value_heads=4), "float16"),
        Case("llama-bias", llama(attention_bias=True, mlp_bias=True)),
        Case("llama-head-dim", llama(head_dim=12, rms_norm_eps=1e-3, hidden_act="gelu")),
        Case("llama-theta", llama(**rope("default", rope_theta=500000.0)), v4=True),
        # Llama turns whole heads, whatever this says.
        Case("llama-partial", llama(**rope("default", partial_rotary_factor=0.5)), v4=True),
        Case("llama-linear", llama(**rope("linear", factor=4.0)), v4=True),
        # Shorter than the text, so that the scaling that depends on the length sets in.
        Case("llama-dynamic", llama(max_position_embeddings=24, **rope("dynamic", factor=2.0)), v4=True),
        Case("llama-llama3", llama(**rope(
            "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=32)), v4=True),
        Case("llama-yarn", llama(**rope(
            "yarn", factor=4.0, original_max_position_embeddings=20)), v4=True),
        Case("llama-yarn-tuned", llama(**rope(
            "yarn", factor=4.0, original_max_position_embeddings=20, attention_factor=0.9,
            beta_fast=16.0, beta_slow=2.0))),
        Case("llama-yarn-mscale", llama(**rope(
            "yarn", factor=4.0, original_max_position_embeddings=20, mscale=1.5,
            mscale_all_dim=0.5))),
        Case("llama-yarn-untruncated", llama(**rope(
            "yarn", factor=4.0, original_max_position_embeddings=20, truncate=False))),
        Case("llama-longrope", llama(**rope(
            "longrope", short_factor=[1.0, 1.1, 1.2, 1.4], long_factor=[1.0, 2.0, 4.0, 7.0],
            original_max_position_embeddings=16))),
        Case("llama-longrope-short", llama(**rope(
            "longrope", short_factor=[1.0, 1.1, 1.2, 1.4], long_factor=[1.0, 2.0, 4.0, 7.0],
            factor=1.0, original_max_position_embeddings=64))),
        # Not the ratio of the lengths, which is 4.
        Case("llama-longrope-factor", llama(**rope(
            "longrope", short_factor=[1.0, 1.1, 1.2, 1.4], long_factor=[1.0, 2.0, 4.0, 7.0],
            factor=32.0, original_max_position_embeddings=16))),
        Case("llama-sharded", llama(num_hidden_layers=3), shard_size="15KB"),
        Case("llama-aged", llama(), "float16", aged="rotary"),
        Case("mistral", llama_like(mistral, sliding_window=12), "float32", v4=True),
        Case("mistral-full", llama_like(mistral, sliding_window=None, head_dim=16)),
        Case("qwen2", llama_like(qwen2), "float32", v4=True),
        Case("qwen2-window", llama_like(
            qwen2, num_hidden_layers=3, use_sliding_window=True, sliding_window=10,
            max_window_layers=1), v4=True),
        # As its authors write it: the length stays what it was before scaling.
        Case("qwen2-yarn", llama_like(qwen2, max_position_embeddings=32, **rope(
            "yarn", factor=2.0, original_max_position_embeddings=32)), v4=True),
        Case("qwen3", llama_like(qwen3, head_dim=16), v4=True),
        Case("qwen3-tied", llama_like(qwen3, head_dim=8, tie_word_embeddings=True, attention_bias=True)),
        Case("qwen3-window", llama_like(
            qwen3, num_hidden_layers=3, head_dim=8, use_sliding_window=True, sliding_window=10,
            max_window_layers=1), v4=True),
        Case("smollm3", llama_like(
            smollm3, num_hidden_layers=3, tie_word_embeddings=True, no_rope_layers=[1, 0, 1])),
        Case("smollm3-window", llama_like(
            smollm3, num_hidden_layers=3, use_sliding_window=True, sliding_window=10,
            no_rope_layer_interval=2), v4=True),
        Case("gpt-neox", neox(), "float32", v4=True),
        Case("gpt-neox-serial", neox(use_parallel_residual=False, hidden_act="gelu_new")),
        Case("gpt-neox-no-bias", neox(attention_bias=False)),
        Case("gpt-neox-half", neox(
            tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 5000.0, "partial_rotary_factor": 0.5}), v4=True),
        Case("gpt-neox-linear", neox(rope_parameters={
            "rope_type": "linear", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "factor": 4.0}), v4=True),
        Case("opt", opt(), "float32", v4=True),
        Case("opt-post-norm", opt(do_layer_norm_before=False, word_embed_proj_dim=16)),
        Case("opt-projected", opt(word_embed_proj_dim=16, activation_function="gelu")),
        Case("opt-untied", opt(tie_word_embeddings=False)),
        Case("opt-no-bias", opt(enable_bias=False, layer_norm_elementwise_affine=False)),
    ]
