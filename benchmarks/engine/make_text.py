#!/usr/bin/env python3
"""Cuts a text to exactly N tokens of a tokenizer, so that every tool gets equal windows.

    make_text.py TOKENIZER_JSON TEXT OUT --tokens N
"""

import argparse
from pathlib import Path

from tokenizers import Tokenizer


def cut(tokenizer, text, tokens):
    """The shortest prefix of the text that tokenizes to `tokens` tokens and ends in no newline.

    llama.cpp drops one trailing newline of a file, other tools do not.
    """
    ids = tokenizer.encode(text)
    if len(ids.ids) < tokens:
        raise SystemExit(f"the text has {len(ids.ids)} tokens, {tokens} were asked for")
    # A cut can change the last tokens, so look for one that keeps their number.
    for last in range(tokens - 1, len(ids.ids)):
        prefix = text[: ids.offsets[last][1]]
        if not prefix.endswith("\n") and len(tokenizer.encode(prefix).ids) == tokens:
            return prefix
    raise SystemExit("no prefix of the text has that many tokens")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, required=True)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    text = args.text.read_bytes().decode("utf-8")
    args.out.write_bytes(cut(tokenizer, text, args.tokens).encode("utf-8"))


if __name__ == "__main__":
    main()
