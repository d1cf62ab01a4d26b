#!/usr/bin/env bash
# Runs every fuzz target for a few seconds from its seeds: fuzz/smoke.sh [SECONDS] [TARGET...]
# Needs a nightly toolchain. Exits non-zero on a crash, and leaves the input in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-5}
shift || true
cargo +nightly fuzz --version >/dev/null 2>&1 || cargo install --locked --debug cargo-fuzz

targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo +nightly fuzz list | grep -v make-seeds)
cargo +nightly fuzz build --release
for target in "${targets[@]}"; do
    echo "== $target"
    corpus=$(mktemp -d)
    trap 'rm -rf "$corpus"' EXIT
    cargo +nightly fuzz run --release "$target" "$corpus" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=0 -verbosity=0
    rm -rf "$corpus"
done
echo "no crash"
