#!/usr/bin/env bash
# Builds the demo and runs it with the arguments given. What takes long is told
# before it begins, and counted while it lasts. Where all is cached, it is silent.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=$root/.cache/demo
export CGO_ENABLED=0

# count EXPRESSION EVERY TEXT counts the lines that match, tells of every so
# many, and passes on the others.
count() {
	local n=0 line
	while IFS= read -r line; do
		if [[ ! $line =~ $1 ]]; then
			printf '%s\n' "$line"
		elif ((++n % $2 == 0)); then
			printf '  %d %s\n' "$n" "$3"
		fi
	done
}

if ! command -v go >/dev/null; then
	echo 'The demo needs Go: https://go.dev/dl/' >&2
	exit 1
fi
cd "$root/demo"
if ! GOPROXY=off go list -deps . >/dev/null 2>&1; then
	echo 'The first run downloads 80 MB of Go modules. Half of it is the embedded database.'
	go list -deps . 2>&1 >/dev/null | count '^go: downloading ' 10 'modules'
fi
stale=$(go list -deps -f '{{if .Stale}}{{.ImportPath}}{{end}}' . | wc -l)
if ((stale > 100)); then
	echo "The first run compiles $((stale)) packages. That takes about two minutes on two cores."
fi
go build -v -ldflags=-w -o "$program" . 2>&1 | count '^[^ :#]+$' 50 "of $((stale)) packages"
exec "$program" "$@"
