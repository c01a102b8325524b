#!/bin/sh
# Runs Bun with the given arguments: the one of npm (its install script need not have run), else the one on PATH.
unset CDPATH
root=$(cd "$(dirname "$0")/.." && pwd)
for bun in "$root"/node_modules/.bin/bun "$root"/node_modules/@oven/bun-*/bin/bun "$(command -v bun 2>/dev/null)"; do
  [ -x "$bun" ] && "$bun" --version >/dev/null 2>&1 && exec "$bun" "$@"
done
echo "rcm: Bun is not installed or does not run here; run \`npm install\` in $root" >&2
exit 6
