#!/bin/sh
# Runs the op tests of half and single precision under compute-sanitizer: memcheck, then racecheck (shared memory).
# Exit 1 on any finding.
# usage: sh test/gpu/sanitize.sh [pattern of test names [tool [test file...]]]
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root" || exit 1
pattern=${1:-"(bf16|f32) is as close to f64|f32-grade"}
tools=${2:-memcheck racecheck}
[ $# -ge 2 ] && shift
[ $# -ge 1 ] && shift
[ $# -eq 0 ] && set -- ./test/gpu/ops/ops.test.ts ./test/gpu/ops/precision.test.ts
status=0
for tool in $tools; do
  log=$(mktemp)
  compute-sanitizer --tool "$tool" --target-processes all --print-limit 20 \
    sh cli/bun.sh test --timeout 600000 -t "$pattern" "$@" >"$log" 2>&1
  summary=$(grep -E "ERROR SUMMARY|RACECHECK SUMMARY" "$log" | tail -n 1)
  counts=$(grep -E "^ *[0-9]+ (pass|fail)" "$log" | tr -s ' \n' ' ')
  echo "$tool: ${summary:-no summary} ($counts)"
  if ! grep -qE "(ERROR SUMMARY: 0 errors|RACECHECK SUMMARY: 0 hazards)" "$log"; then
    status=1
    grep -E "^=========" "$log" | head -n 40
  fi
  rm -f "$log"
done
exit $status
