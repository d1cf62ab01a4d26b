#!/usr/bin/env bash
# Opens what sparse writes with the tools it is meant for, and the other way round.
#
#   conformance/run.sh [TEST...]    engine_test, quant_test, ...; all of them without
#
# Two tests run at a time, each on one thread of torch: their models are too small for more.
set -euo pipefail
cd "$(dirname "$0")/.."

conformance/install.sh
cargo build --release --quiet

export OMP_NUM_THREADS=1
cd conformance
# The longest first.
tests=("$@")
[ $# -gt 0 ] || tests=(engine_test gptq_test quant_test
    $(ls | sed -n 's/\.py$//p' | grep _test | grep -vE '^(engine|gptq|quant)_test$'))
printf '%s\n' "${tests[@]}" | xargs -P 2 -I{} sh -c '
    log=$(mktemp)
    .venv/bin/python -m unittest {} >"$log" 2>&1
    code=$?
    printf "== %s\n" {} && tail -n 60 "$log" && rm "$log"
    exit $code'
