#!/usr/bin/env bash
# Measures all that docs/performance.md has, and prints it for bench/report and for
# benchstat: scripts/measure.sh <how often>.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
times=${1:-6}
binaries=$(mktemp -d)
trap 'rm -rf "$binaries"' EXIT

processor() { sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1 | grep . || uname -m; }

echo "go: $(go env GOVERSION)"
echo "cores: $(getconf _NPROCESSORS_ONLN)"
echo "processor: $(processor)"
(cd bench && go test -c -o "$binaries/bench" .)
go test -c -o "$binaries/core" .
go test -c -o "$binaries/callstack" ./internal/callstack

bench() { # a binary, its benchmarks, and how
	"$binaries/$1" -test.run '^$' -test.bench "$2" -test.benchmem "${@:3}" 2>/dev/null
}

uptime >&2
for ((i = 0; i < times; i++)); do
	bench bench Overhead -test.benchtime 1x
	(cd bench && "$binaries/bench" -test.run WaitsUnderSaturation)
	bench core 'GrowthOf(Sessions|Places|Statements|Depth)|GrowthOfLeases/./call' -test.benchtime 1ms -test.count 20
	bench callstack Capture -test.benchtime 1ms -test.count 20
	bench core Contended -test.benchtime 20ms -test.count 10 -test.cpu 1,2,4,8
	bench core Saturated
done
uptime >&2
