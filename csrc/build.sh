#!/bin/sh
# Builds the native libraries into build/lib. Prints only failures, and is a no-op when everything is up to date.
# The CUDA library is built when a GPU is present; RCM_CUDA=1 builds it wherever nvcc is found, RCM_CUDA=0 never does.
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
# A CUDA library built from an older header would fail the ABI check, so delete it when this build does not replace it.
if [ "$cuda" = OFF ] && [ "$root/csrc/include/rcm.h" -nt "$root/build/lib/librcm_cuda.so" ]; then
  rm -f "$root/build/lib/librcm_cuda.so" "$dir/librcm_cuda.so"
fi
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
