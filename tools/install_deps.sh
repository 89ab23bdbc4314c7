#!/usr/bin/env bash
# Installs what qcompile needs on Debian 12.  Quick when everything is there; uses sudo when not root.
set -euo pipefail
packages=(g++ cmake ninja-build ccache git python3 llvm-19-dev llvm-19-tools libonnx-dev libprotobuf-dev protobuf-compiler libfmt-dev
  libexpected-dev libcli11-dev nlohmann-json3-dev libturbojpeg0-dev libpng-dev zlib1g-dev libgtest-dev libgmock-dev
  libonnx-testdata
  clang-19 libclang-rt-19-dev  # fuzzing
  gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)  # kernels for AArch64 are tested under an emulator
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
"${root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
