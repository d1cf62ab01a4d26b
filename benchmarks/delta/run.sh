#!/usr/bin/env bash
# Measures every delta method side by side and keeps the raw numbers.
#
#   benchmarks/delta/run.sh [OPTION OF bench-delta ...]
#
# SPARSE_FIXTURES  folder with checkpoints/: measures its pairs. Without it, the pair
#                  in the repository.
# SPARSE_PAIRS     folder that finetunes.py has filled: measures those pairs too.
# SPARSE_RESULTS   where the JSON files go; benchmarks/results by default.
#
# The peers from PyPI are installed into benchmarks/.venv the first time (they need
# torch: some GB); xdelta3 is taken from the system (apt-get install xdelta3).
set -euo pipefail
cd "$(dirname "$0")/../.."

results=${SPARSE_RESULTS:-benchmarks/results}
venv=benchmarks/.venv
work=benchmarks/work
repository_base=examples/base
repository_finetune=examples/finetune

install_peers() {
    if ! cmp -s benchmarks/delta/requirements.txt "$venv/requirements.txt"; then
        python3 -m venv "$venv"
        "$venv/bin/pip" install --quiet --requirement benchmarks/delta/requirements.txt
        cp benchmarks/delta/requirements.txt "$venv/requirements.txt"
    fi
}

# measure BASE FINETUNE [OPTION ...]
measure() {
    local name
    name="$(basename "$1")--$(basename "$2")"
    if ! "${CARGO_TARGET_DIR:-target}/release/bench-delta" "$1" "$2" "${@:3}" \
        --python "$venv/bin/python" --json "$results/delta-$name.json" 2>"$work/log"; then
        tail -n 2 "$work/log" >&2
        return 2
    fi
    echo
}

fixture_pairs() {
    local checkpoints=$SPARSE_FIXTURES/checkpoints
    if [ ! -d "$work/gpt2-base-fp16" ]; then
        "$venv/bin/python" "$SPARSE_FIXTURES/cast_fp16.py" "$work/gpt2-base-fp16"
    fi
    measure "$checkpoints/gpt2-base-bf16" "$checkpoints/gpt2-sft-bf16" "$@"
    measure "$work/gpt2-base-fp16" "$checkpoints/gpt2-sft-fp16" "$@"
    measure "$checkpoints/gpt2-base-fp32" "$checkpoints/gpt2-sft-fp32" "$@"
    measure "$checkpoints/gpt2-base-bf16" "$checkpoints/gpt2-lora-merged-bf16" "$@"
    measure "$checkpoints/llama-base-bf16" "$checkpoints/llama-sft-bf16" "$@"
    measure "$checkpoints/gpt2-base-bf16" "$checkpoints/gpt2-addtok-bf16" "$@"
    measure "$checkpoints/gpt2-base-fp32" "$checkpoints/gpt2-sft-bf16" "$@"
}

# Pairs are named after their base up to the first dash, and its type.
made_pairs() {
    local fine base family type
    for fine in "$SPARSE_PAIRS"/*/; do
        fine=${fine%/}
        family=$(basename "$fine" | cut -d- -f1)
        type=$(basename "$fine" | grep -oE 'bf16|fp16|fp32' | tail -n 1)
        base=$SPARSE_FIXTURES/checkpoints/$family-base-$type
        [ -d "$base" ] || base=$SPARSE_PAIRS/$family-base-$type
        [ "$(basename "$base")" = "$(basename "$fine")" ] || measure "$base" "$fine" "$@"
    done
}

install_peers
cargo build --release --package bench-delta
mkdir -p "$work" "$results"
if [ -n "${SPARSE_FIXTURES:-}" ]; then
    fixture_pairs "$@"
    [ -z "${SPARSE_PAIRS:-}" ] || made_pairs "$@"
else
    measure "$repository_base" "$repository_finetune" "$@"
fi
