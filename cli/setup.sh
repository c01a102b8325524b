#!/bin/sh
# Makes a fresh clone ready: npm packages, a BLAS where it may, the native libraries. Quiet when nothing is to be done.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "installing npm packages" >&2
  npm ci --no-audit --no-fund --loglevel=error >&2
fi
for tool in g++ cmake; do
  command -v "$tool" >/dev/null 2>&1 || { echo "rcm: $tool is missing; run: apt-get install -y g++ cmake make" >&2; exit 1; }
done
has_blas() { ldconfig -p 2>/dev/null | grep -Eq 'libopenblas\.so|libmkl_rt\.so'; }
if ! has_blas; then
  as=""
  if [ "$(id -u)" = 0 ]; then as="env"; elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as="sudo -n"; fi
  done=""
  if [ -n "$as" ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing libopenblas0-pthread" >&2
    { $as apt-get install -y -qq libopenblas0-pthread || { $as apt-get update -qq && $as apt-get install -y -qq libopenblas0-pthread; }; } >/dev/null 2>&1 && done=1
  fi
  [ -n "$done" ] || echo "rcm: no OpenBLAS; the built-in matmul is several times slower. To install it: sudo apt-get install -y libopenblas0-pthread" >&2
fi
sh csrc/build.sh
