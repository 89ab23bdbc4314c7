#!/usr/bin/env bash
# Installs, builds and runs every test, with one summary at the end.
#   tools/test.sh [--shared DIR] [--ort-python PYTHON] [--torch-python PYTHON]
# DIR: real models, data and test vectors; PYTHON: one with onnxruntime, numpy and Pillow, and one with torch and torchao.  Tests that need
# what is not given are left out: the configuration says so, and ctest lists them as skipped.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
build=${QC_BUILD:-$here/build}
shared=
options=()
while [ $# -gt 0 ]; do
  case $1 in
    --shared) shared=$(cd "$2" && pwd); shift 2 ;;
    --ort-python) options+=(-DQC_ORT_PYTHON="$2"); shift 2 ;;
    --torch-python) options+=(-DQC_TORCH_PYTHON="$2"); shift 2 ;;
    *) echo "usage: tools/test.sh [--shared DIR] [--ort-python PYTHON] [--torch-python PYTHON]" >&2; exit 2 ;;
  esac
done
"$here/tools/install_deps.sh"
cmake -S "$here" -B "$build" -G Ninja -DQC_TESTS=ON -DQC_PCH=ON -DQC_SANITIZED_FUZZ=ON -DQC_SHARED_DIR="$shared" "${options[@]}" >/dev/null
cmake --build "$build"
cd "$build"
ctest --output-on-failure -j "$(nproc)" --timeout 900
