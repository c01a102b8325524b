#!/bin/sh
# Runs every test tier and ends with the plain line "N passed, N failed, N skipped", taken from Bun's junit file.
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
# Tests start several processes at once: threads that wait sleep instead of spinning, so that they can share the cores.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}" OPENBLAS_THREAD_TIMEOUT="${OPENBLAS_THREAD_TIMEOUT:-4}"
mkdir -p build
rm -f build/junit.xml
sh cli/bun.sh test --timeout 600000 --reporter=junit --reporter-outfile=build/junit.xml "$@" ./test
status=$?
sh cli/bun.sh test/harness/summary.ts build/junit.xml "$status"
