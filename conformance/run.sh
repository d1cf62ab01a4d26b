#!/usr/bin/env bash
# Opens what sparse writes with the tools it is meant for, and the other way round.
set -euo pipefail
cd "$(dirname "$0")/.."

conformance/install.sh
cargo build --release --quiet
exec conformance/.venv/bin/python -m unittest discover --start-directory conformance --pattern '*_test.py'
