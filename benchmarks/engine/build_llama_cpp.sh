#!/usr/bin/env bash
# Builds llama.cpp from the sources that the sdist of llama-cpp-python carries, for this CPU.
#
#   build_llama_cpp.sh VENV WORK
#
# VENV has cmake and ninja. The tools lie in WORK/llama.cpp/bin afterwards: llama-bench,
# llama-perplexity, llama-quantize, llama-imatrix, llama-completion, llama-tokenize.
set -euo pipefail

version=0.3.36
venv=$(realpath "$1")
work=$(realpath "$2")
source=$work/llama_cpp_python-$version/vendor/llama.cpp
build=$work/llama.cpp
export PATH="$venv/bin:$PATH"

if [ "$(head -n 1 "$build/bin/build.txt" 2>/dev/null)" = "llama-cpp-python $version" ]; then
    exit 0
fi
if [ ! -f "$source/CMakeLists.txt" ]; then
    pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$work" \
        "llama-cpp-python==$version"
    tar -xzf "$work/llama_cpp_python-$version.tar.gz" -C "$work"
fi
# Instruction sets of this CPU (GGML_NATIVE) as llama.cpp's own default; no network, no server.
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
    -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DGGML_CCACHE=OFF >"$work/llama.cpp.log"
nice -n 5 ninja -C "$build" -j 2 llama-bench llama-perplexity llama-quantize llama-imatrix \
    llama-completion llama-tokenize >>"$work/llama.cpp.log"
{
    echo "llama-cpp-python $version"
    grep -E 'ggml (version|commit)|llama.cpp version|Adding CPU backend' "$work/llama.cpp.log"
    c++ --version | head -n 1
} >"$build/bin/build.txt"
