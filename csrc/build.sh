#!/bin/sh
# Builds the native libraries into build/lib. Quiet unless something fails; does nothing when all is current.
# The CUDA library is built where a GPU is, or with RCM_CUDA=1 wherever nvcc is; never with RCM_CUDA=0.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
dir="$root/build/cmake"
mkdir -p "$dir" "$root/build/lib"
log="$root/build/build.log"
generator=""
command -v ninja >/dev/null 2>&1 && generator="-G Ninja"
[ -f "$dir/CMakeCache.txt" ] && generator=""
cuda=OFF
case "${RCM_CUDA:-}" in
  1) cuda=ON ;;
  "") [ -e /dev/nvidiactl ] && cuda=ON ;;
esac
# One from an older header would only be refused.
[ "$cuda" = ON ] || [ ! "$root/csrc/include/rcm.h" -nt "$root/build/lib/librcm_cuda.so" ] || rm -f "$root/build/lib/librcm_cuda.so" "$dir/librcm_cuda.so"
{
  # shellcheck disable=SC2086
  cmake -S "$root/csrc" -B "$dir" $generator -DRCM_CUDA=$cuda "$@" && cmake --build "$dir" --parallel "$(nproc)"
} >"$log" 2>&1 || {
  cat "$log" >&2
  echo "build failed; the log is $log" >&2
  exit 1
}
for built in "$dir"/librcm_*.so; do
  target="$root/build/lib/$(basename "$built")"
  cmp -s "$built" "$target" 2>/dev/null && continue
  cp "$built" "$target.tmp" && mv "$target.tmp" "$target"
done
