#!/usr/bin/env bash
# Quantizes the fixtures with sparse and with its peers, and measures what each loses.
#
#   benchmarks/quant/run.sh [--models NAME,...] [--methods NAME,...] [--seeds N] [--tokens N]
#
# SPARSE_FIXTURES  folder with checkpoints/ and text/; needed
# SPARSE_RESULTS   where the JSON files go; benchmarks/results by default
#
# The first run installs the peers into benchmarks/.venv-quant (5 GB, most of it torch's) and
# builds llama.cpp, which needs a C++ compiler and some minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."

results=${SPARSE_RESULTS:-benchmarks/results}
venv=benchmarks/.venv-quant
work=benchmarks/work/quant
mkdir -p "$results" "$work" benchmarks/work/engine

# The same pinned lists as the conformance tests': what is measured is what was tested.
lists=(conformance/requirements{,-torch,-quant}.txt)
if ! cat "${lists[@]}" | cmp -s - "$venv/installed.txt"; then
    python3 -m venv "$venv"
    for list in "${lists[@]}"; do
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$list"
    done
    cat "${lists[@]}" >"$venv/installed.txt"
fi
benchmarks/engine/build_llama_cpp.sh "$venv" benchmarks/work/engine
cargo build --release --quiet --package sparse

exec "$venv/bin/python" benchmarks/quant/measure.py \
    --sparse "${CARGO_TARGET_DIR:-target}/release/sparse" \
    --llama-cpp benchmarks/work/engine/llama.cpp/bin \
    --fixtures "${SPARSE_FIXTURES:?set it to the folder with checkpoints/ and text/}" \
    --work "$work" --results "$results" "$@"
