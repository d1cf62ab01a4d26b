"""Makes a base and a derivative larger than memory, the same ones every time.

usage: make_large.py OUT_FOLDER [--bytes 5_000_000_000] [--format jsonl|parquet]

The derivative drops a tenth of the rows, shuffles the others within windows of
20,000, changes a word in 1 % of them, repeats 0.1 %, adds a constant column and
one new row in 10,000. Rows are drawn from a fixed stock of sentences, so that a
byte tool finds much to match. Parquet needs pyarrow.
"""

import argparse
import random
from pathlib import Path

SEED = 20240501
WINDOW = 20_000
SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe qui ro su ta ve wi xo zu".split()


def stock(rng):
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(5_000)]
    return words, [" ".join(rng.choices(words, k=rng.randint(6, 16))).capitalize() + "." for _ in range(50_000)]


def windows(total):
    """Yields (base rows, derivative rows), each row an (id, text, score) or the same with a source."""
    rng = random.Random(SEED)
    words, sentences = stock(rng)
    written, number = 0, 0
    while written < total:
        base = []
        for _ in range(WINDOW):
            text = " ".join(rng.choices(sentences, k=6))
            base.append((f"row-{number:09}", text, rng.randint(0, 100)))
            written += len(text) + 52
            number += 1
        kept = [row for row in base if rng.random() < 0.9]
        rng.shuffle(kept)
        for at in rng.sample(range(len(kept)), len(kept) // 100):
            name, text, score = kept[at]
            parts = text.split(" ")
            parts[rng.randrange(len(parts))] = rng.choice(words)
            kept[at] = (name, " ".join(parts), score)
        kept += rng.sample(kept, len(kept) // 1000)
        for extra in range(len(kept) // 10_000):
            kept.insert(rng.randrange(len(kept)), (f"new-{number}-{extra}", " ".join(rng.choices(words, k=60)), 7))
        yield base, kept


def write_jsonl(out, total):
    with open(out / "base.jsonl", "w") as base_file, open(out / "derivative.jsonl", "w") as derivative_file:
        for base, derivative in windows(total):
            base_file.write("".join(f'{{"id": "{a}", "text": "{t}", "score": {s}}}\n' for a, t, s in base))
            derivative_file.write(
                "".join(f'{{"id": "{a}", "text": "{t}", "score": {s}, "source": "synthetic"}}\n' for a, t, s in derivative)
            )


def write_parquet(out, total):
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("id", pa.string()), ("text", pa.string()), ("score", pa.int64())]
    base_schema, schema = pa.schema(fields), pa.schema(fields + [("source", pa.string())])
    with (
        pq.ParquetWriter(out / "base.parquet", base_schema, compression="snappy") as base_file,
        pq.ParquetWriter(out / "derivative.parquet", schema, compression="zstd") as derivative_file,
    ):
        for base, derivative in windows(total):
            columns = [list(column) for column in zip(*base)]
            base_file.write_table(pa.table(columns, schema=base_schema))
            columns = [list(column) for column in zip(*derivative)]
            columns.append(["synthetic"] * len(derivative))
            derivative_file.write_table(pa.table(columns, schema=schema))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--bytes", type=int, default=5_000_000_000, help="about the size of the base's text")
    parser.add_argument("--format", choices=["jsonl", "parquet"], default="jsonl")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    {"jsonl": write_jsonl, "parquet": write_parquet}[args.format](args.out, args.bytes)


if __name__ == "__main__":
    main()
