"""What `sparse delta` writes, opened by safetensors and tokenizers."""

import hashlib
import pathlib
import tempfile
import unittest

import safetensors
import tokenizers

from support import BASE, DELTA, ROOT, sparse


class Delta(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.fine = pathlib.Path(cls.folder.name) / "finetune"
        sparse("delta", "reconstruct", BASE, DELTA, "-o", cls.fine)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_every_rebuilt_file_has_the_recorded_digest(self):
        lines = (ROOT / "examples" / "finetune.sha256").read_text().splitlines()
        recorded = {name: digest for digest, name in (line.split() for line in lines)}
        found = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.fine.iterdir()
        }
        self.assertEqual(found, recorded)

    def test_safetensors_opens_the_artifact(self):
        with safetensors.safe_open(DELTA / "delta.safetensors", framework="np") as file:
            self.assertEqual(file.metadata()["format"], "sparse-delta")
            self.assertEqual(sorted(file.keys()), ["data", "index"])
            self.assertEqual(file.get_tensor("index")[:4].tobytes(), b"\x28\xb5\x2f\xfd")

    def test_safetensors_reads_the_rebuilt_weights_that_info_lists(self):
        data = safetensors.deserialize((self.fine / "model.safetensors").read_bytes())
        listed = sparse("delta", "info", DELTA)["tensors"]
        self.assertEqual(
            {name: entry["shape"] for name, entry in data},
            {tensor["name"]: tensor["shape"] for tensor in listed},
        )

    def test_safetensors_reads_a_single_tensor(self):
        name = "transformer.h.0.attn.c_attn.weight"
        path = pathlib.Path(self.folder.name) / "one.safetensors"
        sparse("delta", "reconstruct", BASE, DELTA, "--tensor", name, "-o", path)
        whole = dict(safetensors.deserialize((self.fine / "model.safetensors").read_bytes()))
        one = dict(safetensors.deserialize(path.read_bytes()))
        self.assertEqual(list(one), [name])
        self.assertEqual(one[name], whole[name])

    def test_tokenizers_reads_the_rebuilt_tokenizer(self):
        tokenizer = tokenizers.Tokenizer.from_file(str(self.fine / "tokenizer.json"))
        text = "To be, or not to be"
        self.assertEqual(tokenizer.decode(tokenizer.encode(text).ids), text)


if __name__ == "__main__":
    unittest.main()
