#!/bin/sh
# Builds the native libraries into build/lib. Quiet unless something fails; does nothing when all is current.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
dir="$root/build/cmake"
mkdir -p "$dir" "$root/build/lib"
log="$root/build/build.log"
generator=""
command -v ninja >/dev/null 2>&1 && generator="-G Ninja"
[ -f "$dir/CMakeCache.txt" ] && generator=""
{
  # shellcheck disable=SC2086
  cmake -S "$root/csrc" -B "$dir" $generator "$@" && cmake --build "$dir" --parallel "$(nproc)"
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
