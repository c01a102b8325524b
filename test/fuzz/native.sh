#!/bin/sh
# Builds the CPU library's file reading under the address and undefined-behaviour sanitizers and feeds it bad requests:
#   sh test/fuzz/native.sh [INPUTS]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
runtime="$root/csrc/cpu/runtime"
c++ -std=gnu++17 -O1 -g -Wall -Wextra -Werror -fopenmp -DRCM_ABI_HASH=1LL \
  -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
  -I"$root"/csrc "$root"/test/fuzz/file_read.cpp "$root"/csrc/shared/status.cpp \
  "$runtime"/files.cpp "$runtime"/runtime.cpp "$runtime"/memory.cpp "$runtime"/blas.cpp \
  -ldl -o "$work/driver"
ASAN_OPTIONS=detect_leaks=0 "$work/driver" "$work" "${1:-20000}"
