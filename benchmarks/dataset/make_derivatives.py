"""Makes derivatives of the GSM8K training set, the same ones every time.

usage: make_derivatives.py GSM8K_TRAIN.jsonl GSM8K_TEST.jsonl OUT_FOLDER [SQUAD.parquet]

Python's own random module with a fixed seed; Parquet files need pyarrow.
"""

import csv
import json
import random
import sys
from pathlib import Path

SEED = 20240501


def lines(path):
    return Path(path).read_text(encoding="utf-8").splitlines()


def one_word_changed(rows, share, rng, words):
    """Replaces one word of the answer in a share of the rows."""
    out = list(rows)
    for index in rng.sample(range(len(out)), int(len(out) * share)):
        row = json.loads(out[index])
        parts = row["answer"].split(" ")
        parts[rng.randrange(len(parts))] = rng.choice(words)
        row["answer"] = " ".join(parts)
        out[index] = json.dumps(row)
    return out


def write(path, rows):
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")


def mixed(train, test, rng, words, derived):
    """Shuffled, 30 % filtered, 1 % edited, two columns added, 5 % new rows."""
    rows = [json.loads(line) for line in one_word_changed(train, 0.01, rng, words)]
    rows = rng.sample(rows, int(len(rows) * 0.7))
    new = [json.loads(line) for line in rng.sample(test, int(len(rows) * 0.05))]
    for row in new:
        rows.insert(rng.randrange(len(rows) + 1), row)
    for row in rows:
        row["source"] = "gsm8k"
        row.update(derived(row))
    return rows


def main():
    train_path, test_path, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    out.mkdir(parents=True, exist_ok=True)
    train, test = lines(train_path), lines(test_path)
    vocabulary = sorted({w for line in train for w in json.loads(line)["answer"].split(" ") if w.isalpha()})

    rng = random.Random(SEED)
    write(out / "words_changed.jsonl", one_word_changed(train, 0.02, rng, vocabulary))

    rng = random.Random(SEED)
    write(out / "shuffled.jsonl", rng.sample(train, len(train)))

    rng = random.Random(SEED)
    write(out / "filtered.jsonl", [line for line in train if rng.random() < 0.7])

    # The same with another seed and a column by a rule of another kind.
    def level(row):
        return {"steps": str(row["answer"].count("\n")), "origin": "GSM8K"}

    rows = mixed(train, test, random.Random(SEED + 1), vocabulary, level)
    write(out / "mixed_steps.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows])

    derivations = {
        # The text column that instruction tuning uses.
        "mixed_text": lambda row: {"text": f"Question: {row['question']}\nAnswer: {row['answer']}"},
        # The number after the mark, as evaluations use it.
        "mixed_final": lambda row: {"final_answer": row["answer"].split("#### ")[-1]},
        # A change of case.
        "mixed_lower": lambda row: {"question_lower": row["question"].lower()},
    }
    for name, derived in derivations.items():
        rows = mixed(train, test, random.Random(SEED), vocabulary, derived)
        write(out / f"{name}.jsonl", [json.dumps(row) for row in rows])
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            print("pyarrow is not installed: no Parquet derivatives", file=sys.stderr)
            continue
        pq.write_table(pa.Table.from_pylist(rows), out / f"{name}.parquet", row_group_size=500, compression="zstd")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist([json.loads(line) for line in train])
        pq.write_table(table, out / "gsm8k_train.parquet", row_group_size=1000, compression="snappy")
        order = random.Random(SEED).sample(range(table.num_rows), table.num_rows)
        pq.write_table(table.take(order), out / "shuffled_gzip.parquet", compression="gzip")
        if len(sys.argv) > 4:
            squad = pq.read_table(sys.argv[4])
            order = random.Random(SEED).sample(range(squad.num_rows), squad.num_rows)
            pq.write_table(squad.take(order), out / "squad_shuffled.parquet")
            rows = pq.read_table(sys.argv[4], columns=["id", "title", "context", "question"]).to_pylist()
            random.Random(SEED).shuffle(rows)
            with (out / "squad_shuffled.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    except ImportError:
        pass


if __name__ == "__main__":
    main()
