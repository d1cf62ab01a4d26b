"""Parquet and Arrow files that sparse rebuilds are read by pyarrow and pandas as the originals."""

import datetime
import decimal
import tempfile
import unittest
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq

from support import sparse


def table(rows):
    """A table with a column of every kind that people store."""
    numbers = range(rows)
    word = lambda n: ["alpha", "beta", "gamma"][n % 3]
    return pa.table(
        {
            "id": pa.array(numbers, pa.int32()),
            "text": pa.array([None if n % 11 == 0 else f"row {n} says {n * 7919 % 1000}" for n in numbers]),
            "kind": pa.array([word(n) for n in numbers]).dictionary_encode(),
            "price": pa.array([decimal.Decimal(n * 37) / 100 for n in numbers], pa.decimal128(12, 2)),
            "when": pa.array(
                [datetime.datetime(2024, 1, 1) + datetime.timedelta(minutes=n) for n in numbers], pa.timestamp("us", "UTC")
            ),
            "tags": pa.array([[word(n + k) for k in range(n % 4)] for n in numbers]),
            "person": pa.array([{"name": word(n), "age": n % 90} if n % 7 else None for n in numbers]),
            "score": pa.array([n / 7 for n in numbers], pa.float32()),
            "raw": pa.array([bytes([n % 256, 0, 255]) for n in numbers], pa.binary()),
        }
    ).replace_schema_metadata({"made by": "a test"})


def derivative(base):
    """Rows dropped, moved and repeated, a column added and one gone."""
    order = [n for n in reversed(range(base.num_rows)) if n % 5] + [3, 3]
    taken = base.take(order).drop_columns(["score"])
    return taken.append_column("source", pa.array(["here"] * len(order))).replace_schema_metadata({"step": "2"})


def plain(table):
    """Dictionary columns by their values: a Parquet writer chooses the order of each dictionary."""
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table[index].cast(field.type.value_type))
    return table


class DatasetTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = Path(self.folder.name)

    def rebuilt(self, base, made, *options):
        """Compresses and rebuilds; says whether the bytes are the original's."""
        delta, again = self.path / "delta", self.path / f"again{made.suffix}"
        report = sparse("dataset", "compress", base, made, "-o", delta, "--force", *options)
        sparse("dataset", "reconstruct", base, delta, "-o", again, "--force")
        if report["byte_exact"]:
            self.assertEqual(again.read_bytes(), made.read_bytes())
        return again, report["byte_exact"]

    def test_parquet(self):
        base = table(2_000)
        made = derivative(base)
        base_path, made_path = self.path / "base.parquet", self.path / "made.parquet"
        pq.write_table(base, base_path)
        for codec in ("snappy", "zstd", "gzip", "brotli", "lz4", "none"):
            for version, pages in (("1.0", "1.0"), ("2.6", "2.0")):
                pq.write_table(made, made_path, compression=codec, version=version, data_page_version=pages, row_group_size=700)
                for options in ((), ("--logical",)):
                    with self.subTest(codec=codec, pages=pages, options=options):
                        again, _ = self.rebuilt(base_path, made_path, *options)
                        read, expected = plain(pq.read_table(again)), plain(pq.read_table(made_path))
                        self.assertTrue(read.equals(expected, check_metadata=True))
                        self.assertEqual(
                            [pq.ParquetFile(path).metadata.num_row_groups for path in (again, made_path)], [3, 3]
                        )
                        frames = [pandas.read_parquet(path).astype({"kind": str}) for path in (again, made_path)]
                        pandas.testing.assert_frame_equal(*frames)

    def test_parquet_comes_back_byte_for_byte(self):
        """What pyarrow and pandas write by default, in row groups of many pages."""
        base = plain(table(60_000))
        made = derivative(base)
        base_path, made_path = self.path / "base.parquet", self.path / "made.parquet"
        pq.write_table(base, base_path)
        writes = {
            f"{codec}, {pages}": lambda codec=codec, pages=pages: pq.write_table(
                made, made_path, compression=codec, data_page_version=pages
            )
            for codec in ("snappy", "zstd", "gzip", "none")
            for pages in ("1.0", "2.0")
        } | {
            "small groups": lambda: pq.write_table(made, made_path, row_group_size=900),
            "no dictionaries": lambda: pq.write_table(made, made_path, use_dictionary=False, write_page_index=True),
            "chunks": lambda: pq.write_table(pa.concat_tables([made, made.slice(5, 777), made]), made_path),
            "pandas": lambda: made.drop_columns(["tags", "person"]).to_pandas().to_parquet(made_path),
        }
        for name, write in writes.items():
            with self.subTest(name):
                write()
                _, exact = self.rebuilt(base_path, made_path)
                self.assertTrue(exact)

    def test_parquet_types_that_readers_tell_apart(self):
        """Each with many rows, so that no patch makes the bytes come back; only pyarrow judges."""
        rows = 3_000
        text = [" ".join(f"w{n * k % 97}" for k in range(1, 15)) for n in range(rows)]
        days = [datetime.datetime(9999, 12, 31) - datetime.timedelta(days=n) for n in range(rows)]
        seconds = pa.array([n * 1_000 for n in range(rows)], pa.timestamp("s", "+05:30"))
        uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([n.to_bytes(16, "big") for n in range(rows)], pa.binary(16)))
        documents = pa.ExtensionArray.from_storage(pa.json_(), pa.array([f'{{"n": {n}}}' for n in range(rows)]))
        cases = {
            "far times of 96 bits": (pa.array(days, pa.timestamp("us")), {"use_deprecated_int96_timestamps": True}),
            "dates of 64 bits": (pa.array([n * 86_400_000 for n in range(rows)], pa.date64()), {}),
            "seconds in a zone": (seconds, {}),
            "uuid": (uuids, {}),
            "json": (documents, {}),
            "small decimals": (pa.array([decimal.Decimal(n) / 100 for n in range(rows)], pa.decimal128(9, 2)), {}),
            "short integers": (pa.array([n % 200 for n in range(rows)], pa.uint8()), {}),
        }
        order = [n * 7 % rows for n in range(0, rows, 2)]
        base_path, made_path = self.path / "base.parquet", self.path / "made.parquet"
        for name, (column, options) in cases.items():
            for store_schema in (True, False):
                with self.subTest(name=name, store_schema=store_schema):
                    whole = pa.table({"text": text, "column": column})
                    write = {"store_schema": store_schema, **options}
                    pq.write_table(whole, base_path, **write)
                    pq.write_table(whole.take(order), made_path, **write)
                    again, _ = self.rebuilt(base_path, made_path)
                    read = [pq.read_table(path, coerce_int96_timestamp_unit="us") for path in (again, made_path)]
                    self.assertTrue(read[0].equals(read[1], check_metadata=True))
                    declared = [pq.ParquetFile(path).schema.column(1) for path in (again, made_path)]
                    self.assertEqual(*(str(column.logical_type) for column in declared))

    def test_arrow_metadata_beside_the_schema(self):
        base = table(500)
        base_path, made_path = self.path / "base.parquet", self.path / "made.arrow"
        pq.write_table(base, base_path)
        made = plain(derivative(base)).combine_chunks()
        for metadata, of_batch in (({"license": "CC-BY"}, None), (None, {"batch": "0"})):
            with self.subTest(metadata=metadata, of_batch=of_batch):
                with pa.ipc.new_file(made_path, made.schema, metadata=metadata) as writer:
                    writer.write_batch(made.to_batches()[0], custom_metadata=of_batch)
                again, _ = self.rebuilt(base_path, made_path, "--logical")
                found = []
                for path in (again, made_path):
                    with pa.OSFile(str(path)) as source:
                        reader = pa.ipc.open_file(source)
                        found.append((reader.metadata, reader.get_batch_with_custom_metadata(0)))
                self.assertEqual(*(one[0] for one in found))
                self.assertEqual(*(one[1].custom_metadata for one in found))
                self.assertTrue(found[0][1].batch.equals(found[1][1].batch, check_metadata=True))

    def test_arrow(self):
        base = table(500)
        made = plain(derivative(base))
        base_path = self.path / "base.parquet"
        pq.write_table(base, base_path)
        file, stream = self.path / "file.arrow", self.path / "stream.arrow"
        with pa.ipc.new_file(file, made.schema) as writer:
            writer.write_table(made, max_chunksize=100)
        with pa.ipc.new_stream(stream, made.schema) as writer:
            writer.write_table(made)
        for path, reader in ((file, pa.ipc.open_file), (stream, pa.ipc.open_stream)):
            with self.subTest(path=path.name):
                again, _ = self.rebuilt(base_path, path)
                with pa.OSFile(str(again)) as source, pa.OSFile(str(path)) as original:
                    self.assertTrue(reader(source).read_all().equals(reader(original).read_all(), check_metadata=True))
        feather = self.path / "file.feather"
        pa.feather.write_feather(made.to_pandas(), feather, compression="zstd")
        again, _ = self.rebuilt(base_path, feather)
        pandas.testing.assert_frame_equal(pandas.read_feather(again), pandas.read_feather(feather))

    def test_arrow_dictionaries(self):
        """Values that no row has, the dictionary's order, one inside a list and a struct: all are kept."""
        base = table(500)
        base_path = self.path / "base.parquet"
        pq.write_table(base, base_path)
        words = pa.array(["gamma", "unused", "alpha", "beta"])
        picks = [[1, 0, 3, 2][n % 4] if n % 9 else None for n in range(400)]
        picks = [2 if pick == 1 else pick for pick in picks]
        kind = pa.DictionaryArray.from_arrays(pa.array(picks, pa.int16()), words)
        made = pa.table({"id": pa.array(range(400, 0, -1), pa.int32()), "kind": kind})
        made = made.append_column("tags", pa.array([["a", "b"][: n % 3] for n in range(400)], pa.list_(pa.dictionary(pa.int8(), pa.string()))))
        made = made.append_column("both", pa.StructArray.from_arrays([kind, pa.array(range(400))], ["kind", "n"]))
        file, stream = self.path / "file.arrow", self.path / "stream.arrow"
        with pa.ipc.new_file(file, made.schema) as writer:
            writer.write_table(made.unify_dictionaries(), max_chunksize=101)
        # A stream may replace its dictionary from batch to batch.
        small = made.select(["id", "kind"])
        with pa.ipc.new_stream(stream, small.schema) as writer:
            for at in range(0, 400, 100):
                batch = small.slice(at, 100).combine_chunks().to_batches()[0]
                turned = pa.array(["alpha", "beta", f"extra {at}", "gamma"])
                keys = pa.array([turned.index(value).as_py() if value.is_valid else None for value in batch.column(1)], pa.int16())
                writer.write_batch(pa.record_batch([batch.column(0), pa.DictionaryArray.from_arrays(keys, turned)], schema=small.schema))
        for path, reader in ((file, pa.ipc.open_file), (stream, pa.ipc.open_stream)):
            with self.subTest(path=path.name):
                again, _ = self.rebuilt(base_path, path)
                with pa.OSFile(str(again)) as source, pa.OSFile(str(path)) as original:
                    one, other = reader(source).read_all(), reader(original).read_all()
                one.validate(full=True)
                self.assertTrue(one.equals(other, check_metadata=True))
                chunks = zip(one["kind"].chunks, other["kind"].chunks)
                self.assertTrue(all(a.dictionary.equals(b.dictionary) for a, b in chunks))

    def test_ordered_categories(self):
        """Where the order of a Parquet column's categories means something, it is kept."""
        base_path, made_path = self.path / "base.parquet", self.path / "made.parquet"
        pq.write_table(table(500), base_path)
        sizes = ["small", "medium", "large"]
        frame = pandas.DataFrame({"id": range(300), "size": pandas.Categorical([sizes[(n * 7 + 2) % 3] for n in range(300)], sizes, ordered=True)})
        frame.to_parquet(made_path, index=False)
        for options in ((), ("--logical",)):
            again, _ = self.rebuilt(base_path, made_path, *options)
            pandas.testing.assert_frame_equal(pandas.read_parquet(again), pandas.read_parquet(made_path))

    def test_text(self):
        base = table(300).select(["id", "text", "price"])
        base_path = self.path / "base.parquet"
        pq.write_table(base, base_path)
        frame = base.to_pandas().iloc[::-1]
        for name, write in (
            ("made.csv", lambda path: frame.to_csv(path, index=False)),
            ("made.tsv", lambda path: frame.to_csv(path, index=False, sep="\t")),
            ("made.jsonl", lambda path: frame.astype(str).to_json(path, orient="records", lines=True)),
            ("made.json", lambda path: frame.astype(str).to_json(path, orient="records", indent=1)),
        ):
            with self.subTest(name=name):
                write(self.path / name)
                _, exact = self.rebuilt(base_path, self.path / name)
                self.assertTrue(exact)


if __name__ == "__main__":
    unittest.main()
