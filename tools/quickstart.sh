#!/usr/bin/env bash
# Installs, builds, and runs the main job on a small trained model: quantize, evaluate float and int8, measure both.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
build=${QC_BUILD:-$here/build}
"$here/tools/install_deps.sh"
cmake -S "$here" -B "$build" -G Ninja -DQC_TESTS=OFF -DQC_PCH=ON >/dev/null
cmake --build "$build" --target qcompile
qcompile=$build/bin/qcompile
data=$here/tests/data/digits
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
run() {
  printf '\n$ qcompile %s\n' "${*//$here\//}"
  "$qcompile" "$@"
}
run quantize "$data/digits.onnx" -d "images:$data/calib?order=grey&mean=0&std=255" -o "$out/digits.int8.onnx"
for model in "$data/digits.onnx" "$out/digits.int8.onnx"; do
  run eval "$model" -d "npy:$data/test.npy?mean=0&std=255" --labels "$data/labels.tsv"
  run bench "$model" --seconds 1
done
