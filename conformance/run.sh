#!/usr/bin/env bash
# Opens what sparse writes with the tools it is meant for, and the other way round. Installs
# them, pinned, into a virtual environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=conformance/.venv
pinned=(conformance/requirements{,-torch,-quant}.txt)
if ! cat "${pinned[@]}" | cmp -s - "$venv/installed.txt"; then
    python3 -m venv "$venv"
    # The lists are complete, so no dependency is looked up: of torch's, only the libraries that
    # it is linked with are in them, not those that it loads to use a GPU.
    for list in "${pinned[@]}"; do
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$list"
    done
    cat "${pinned[@]}" > "$venv/installed.txt"
fi
cargo build --release --quiet
exec "$venv/bin/python" -m unittest discover --start-directory conformance --pattern '*_test.py'
