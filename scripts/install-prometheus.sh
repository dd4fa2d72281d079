#!/usr/bin/env bash
# Builds Prometheus and promtool, which prove the dashboard and the alert rules,
# from the Go module proxy into .cache, where they are missing: some minutes,
# once per version. It is built as the module that it is, with the checksums that
# it has, so that nothing of it gets into our module graphs. Service discovery is
# left out.
set -euo pipefail

version=v3.16.0
target=$(cd "$(dirname "$0")/.." && pwd)/.cache/prometheus-$version
[[ -x $target/prometheus && -x $target/promtool ]] && exit 0
echo "Builds Prometheus $version from source into .cache: 150 MB of Go modules, some minutes on two cores, once"

# Prometheus 3.16.0 is the Go module v0.316.0.
IFS=. read -r _ minor patch <<<"$version"
module=$(printf 'github.com/prometheus/prometheus@v0.3%02d.%d' "$minor" "$patch")
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
source=$(go mod download -json "$module" | sed -n 's/^.*"Dir": "\(.*\)",$/\1/p')
cp -r "$source" source
chmod -R u+w source
cd source
GOWORK=off GOTOOLCHAIN=auto CGO_ENABLED=0 go build -trimpath -tags remove_all_sd -o "$work/bin/" ./cmd/prometheus ./cmd/promtool
mkdir -p "$target"
mv "$work"/bin/* "$target/"
