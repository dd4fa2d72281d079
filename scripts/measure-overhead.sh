#!/usr/bin/env bash
# Runs BenchmarkOverhead so many times. Prints the results, for bench/report and
# for benchstat.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../bench"
times=${1:-6}
binary=$(mktemp)
trap 'rm -f "$binary"' EXIT
go test -c -o "$binary" .
for ((i = 0; i < times; i++)); do
	"$binary" -test.run '^$' -test.bench "Overhead/${BENCH:-}" -test.benchmem -test.benchtime 1x 2>/dev/null
done
