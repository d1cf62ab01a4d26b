#!/usr/bin/env bash
# Opens what sparse writes with the tools it is meant for, and the other way round. Installs
# them, pinned, into a virtual environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=conformance/.venv
if ! cmp -s conformance/requirements.txt "$venv/requirements.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check \
        --requirement conformance/requirements.txt
    cp conformance/requirements.txt "$venv/requirements.txt"
fi
cargo build --release --quiet
exec "$venv/bin/python" -m unittest discover --start-directory conformance --pattern '*_test.py'
