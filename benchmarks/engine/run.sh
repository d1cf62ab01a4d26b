#!/usr/bin/env bash
# Measures the engine side by side with transformers and llama.cpp and keeps the raw numbers.
#
#   benchmarks/engine/run.sh [--models NAME,...] [--rounds N] [--quick]
#
# SPARSE_FIXTURES  folder with checkpoints/ and text/: measures its checkpoints too. Without
#                  it, only checkpoints in the shape of gpt2 (124 M parameters, random weights)
# SPARSE_RESULTS   where the JSON files go; benchmarks/results by default
#
# The first run installs the peers into benchmarks/.venv-engine (5 GB, most of it torch's) and
# builds llama.cpp, which needs a C++ compiler and a quarter of an hour on two cores.
set -euo pipefail
cd "$(dirname "$0")/../.."

results=${SPARSE_RESULTS:-benchmarks/results}
venv=benchmarks/.venv-engine
work=benchmarks/work/engine
mkdir -p "$results" "$work"

if ! cmp -s benchmarks/engine/requirements.txt "$venv/requirements.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check \
        --requirement benchmarks/engine/requirements.txt
    cp benchmarks/engine/requirements.txt "$venv/requirements.txt"
fi
benchmarks/engine/build_llama_cpp.sh "$venv" "$work"
cargo build --release --quiet --package sparse

exec "$venv/bin/python" benchmarks/engine/measure.py \
    --sparse "${CARGO_TARGET_DIR:-target}/release/sparse" \
    --llama-cpp "$work/llama.cpp/bin" \
    --work "$work" \
    --results "$results" \
    ${SPARSE_FIXTURES:+--fixtures "$SPARSE_FIXTURES"} "$@"
