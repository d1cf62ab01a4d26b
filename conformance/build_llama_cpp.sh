#!/usr/bin/env bash
# Builds llama.cpp's library, and no more of it, from the sources in llama-cpp-python's sdist.
#
#   build_llama_cpp.sh VENV
#
# VENV has cmake and ninja. VENV/llama.cpp/lib and VENV/llama.cpp/python hold the libraries and
# the Python package afterwards.
set -euo pipefail

version=0.3.36
venv=$(realpath "$1")
made=$venv/llama.cpp
export PATH="$venv/bin:$PATH"
[ "$(cat "$made/version" 2>/dev/null)" = "$version" ] && exit

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps \
    --no-binary llama-cpp-python --dest "$work" "llama-cpp-python==$version"
tar -xzf "$work/llama_cpp_python-$version.tar.gz" -C "$work"
source=$work/llama_cpp_python-$version
# Only the library is built; its models are small, so the compiler need not try hard.
cmake -S "$source/vendor/llama.cpp" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CXX_FLAGS_RELEASE="-O1 -DNDEBUG" -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=ON \
    -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF \
    -DLLAMA_OPENSSL=OFF -DCMAKE_BUILD_WITH_INSTALL_RPATH=ON -DCMAKE_INSTALL_RPATH='$ORIGIN' \
    >"$work/log"
ninja -C "$work/build" llama >>"$work/log" || { tail -n 20 "$work/log" >&2; exit 1; }
rm -rf "$made"
mkdir -p "$made/lib" "$made/python"
find "$work/build" -name 'lib*.so*' -exec cp -P {} "$made/lib/" \;
cp -R "$source/llama_cpp" "$made/python/"
echo "$version" >"$made/version"
