"""The cache that sparse downloads into, used by huggingface_hub, and the other way round."""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import unittest

from support import BASE, sparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "owner/base"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs, on the loopback."""

    requests = []

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        Hub.requests.append(self.path)
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            tree = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0" * 40}
                for path in sorted(BASE.iterdir())
            ]
            return self.send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        if path.startswith(f"/api/models/{REPOSITORY}"):
            siblings = [{"rfilename": path.name} for path in sorted(BASE.iterdir())]
            body = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()
            return self.send(200, body, {"Content-Type": "application/json"})
        prefix = f"/{REPOSITORY}/resolve/"
        name = path.rsplit("/", 1)[-1]
        if not path.startswith(prefix) or not (BASE / name).is_file():
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        body = (BASE / name).read_bytes()
        headers = {
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{hashlib.sha256(body).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        asked = self.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            return self.send(206, body[start:], headers)
        return self.send(200, body, headers)

    def send(self, status, body, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def hub_client(home, endpoint, code):
    """Runs huggingface_hub in a process of its own: it reads the environment once."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return done.stdout.strip()


class Cache(unittest.TestCase):
    def setUp(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.folder = tempfile.TemporaryDirectory()
        self.home = pathlib.Path(self.folder.name)

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()

    def test_the_hubs_client_finds_what_sparse_downloaded(self):
        sparse("delta", "estimate", REPOSITORY, REPOSITORY,
               HF_HOME=str(self.home), HF_ENDPOINT=self.endpoint)
        code = (
            "import huggingface_hub as h;"
            f"print(h.snapshot_download('{REPOSITORY}', local_files_only=True))"
        )
        found = pathlib.Path(hub_client(self.home, self.endpoint, code))
        self.assertEqual(found.name, COMMIT)
        for path in BASE.iterdir():
            self.assertEqual((found / path.name).read_bytes(), path.read_bytes())

    def test_sparse_finds_what_the_hubs_client_downloaded(self):
        code = f"import huggingface_hub as h; h.snapshot_download('{REPOSITORY}')"
        hub_client(self.home, self.endpoint, code)
        Hub.requests.clear()
        made = sparse("delta", "estimate", REPOSITORY, BASE,
                      HF_HOME=str(self.home), HF_ENDPOINT=self.endpoint)
        self.assertEqual(made["unchanged_fraction"], 1.0)
        self.assertEqual(Hub.requests, [])


if __name__ == "__main__":
    unittest.main()
