#!/usr/bin/env bash
# Runs BenchmarkOverhead so many times, the wrappers in turn, so that what else
# the machine does falls on all of them. Prints the results, for
# bench/report and for benchstat.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../bench"
times=${1:-6}
binary=$(mktemp)
trap 'rm -f "$binary"' EXIT
go test -c -o "$binary" .
for ((i = 0; i < times; i++)); do
	"$binary" -test.run '^$' -test.bench "Overhead/${BENCH:-}" -test.benchmem -test.benchtime "${BENCHTIME:-50ms}" 2>/dev/null
done
