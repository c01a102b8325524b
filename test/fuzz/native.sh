#!/bin/sh
# Builds the CPU library's file reading under the address and undefined-behaviour sanitizers and feeds it damaged requests:
#   sh test/fuzz/native.sh [INPUTS]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
c++ -std=gnu++17 -O1 -g -Wall -Wextra -Werror -fopenmp -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DRCM_ABI_HASH=1LL \
  -I"$root"/csrc "$root"/test/fuzz/file_read.cpp "$root"/csrc/cpu/runtime/files.cpp "$root"/csrc/cpu/runtime/runtime.cpp \
  "$root"/csrc/cpu/runtime/memory.cpp "$root"/csrc/cpu/runtime/blas.cpp "$root"/csrc/shared/status.cpp \
  -ldl -o "$work/driver"
ASAN_OPTIONS=detect_leaks=0 "$work/driver" "$work" "${1:-20000}"
