#!/usr/bin/env bash
# Builds Jaeger from the Go module proxy into .cache, where it is missing: some
# ten minutes, once per version. It is built as the module that it is, with the
# checksums that it has, so that nothing of it gets into our module graphs.
set -euo pipefail

# The module v1.76.0 is released as Jaeger 2.13.0.
version=v1.76.0
released=2.13.0
target=$(cd "$(dirname "$0")/.." && pwd)/.cache/jaeger-$version
[[ -x $target/jaeger ]] && exit 0
echo "Builds Jaeger $released from source into .cache: some ten minutes on two cores, once"

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
module=$(go mod download -json "github.com/jaegertracing/jaeger@$version" | sed -n 's/^.*"Dir": "\(.*\)",$/\1/p')
cp -r "$module" source
chmod -R u+w source
cd source
GOTOOLCHAIN=auto CGO_ENABLED=0 go build -o "$work/jaeger" ./cmd/jaeger
mkdir -p "$target"
mv "$work/jaeger" "$target/jaeger"
