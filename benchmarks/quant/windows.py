"""The calibration windows that `sparse quantize` takes from a text, for its peers to take too."""

from tokenizers import Tokenizer

WINDOW = 256


def starts(tokens, window, samples, seed):
    """As crates/sparse-quant/src/calibrate.rs draws them."""
    mask = (1 << 64) - 1
    state = seed
    for _ in range(samples):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield (z ^ (z >> 31)) % (tokens - window + 1)


def windows(model, text, samples, seed):
    """Lists of token ids."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    ids = tokenizer.encode(text.read_text(), add_special_tokens=False).ids
    return [ids[start:start + WINDOW] for start in starts(len(ids), WINDOW, samples, seed)]
