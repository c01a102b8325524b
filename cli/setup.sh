#!/bin/sh
# Prepares a clone: npm packages, a BLAS if it may install one, the native libraries. Quiet if nothing is to be done.
set -eu
unset CDPATH
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
PATH=$PATH:/usr/sbin:/sbin

installed=node_modules/.package-lock.json
if [ ! -f package-lock.json ]; then
  [ -d node_modules ] || npm install --no-audit --no-fund --loglevel=error >&2
elif [ ! -f "$installed" ] || [ package-lock.json -nt "$installed" ]; then
  echo "installing npm packages" >&2
  npm ci --no-audit --no-fund --loglevel=error >&2
fi

for tool in g++ cmake make; do
  [ "$tool" = make ] && command -v ninja >/dev/null 2>&1 && continue
  command -v "$tool" >/dev/null 2>&1 && continue
  echo "rcm: $tool is missing; to install it: sudo apt-get install -y g++ cmake make" >&2
  exit 1
done

has_blas() { ldconfig -p 2>/dev/null | grep -Eq 'libopenblas\.so|libmkl_rt\.so'; }
# As root, or by sudo when that needs no password.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
apt() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::http::Timeout=20 -o Acquire::Retries=0 \
    -o DPkg::Lock::Timeout=60 "$@" </dev/null >/dev/null 2>&1
}
if ! has_blas && [ "${RCM_BLAS:-}" != none ]; then
  if command -v apt-get >/dev/null 2>&1 && as_root true 2>/dev/null; then
    echo "installing libopenblas0-pthread" >&2
    apt install -y libopenblas0-pthread || { apt update && apt install -y libopenblas0-pthread; } || true
  fi
  if ! has_blas; then
    echo "rcm: no OpenBLAS; the built-in matmul is several times slower." \
      "To install it: sudo apt-get install -y libopenblas0-pthread" >&2
  fi
fi
exec sh csrc/build.sh
