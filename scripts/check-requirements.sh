#!/usr/bin/env bash
# Fails where go.mod requires a version that CHANGELOG.md does not name: whoever adopts
# the library gets at least that version of what they use too, and is to be told.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
required=$(sed -n '/^### Required/,/^##* [^R]/p' CHANGELOG.md)
missing=0
while read -r module version rest; do
	[[ $rest == *indirect* ]] && continue
	name=${module#go.opentelemetry.io/otel}
	if [[ $name == "$module" ]]; then
		entry="\`$module\` $version"
	else # one version for all
		entry="\`go.opentelemetry.io/otel\` $version"
		[[ -z $name || $required == *"\`$name\`"* ]] || entry="\`$name\`"
	fi
	if [[ $required != *"$entry"* ]]; then
		echo "go.mod requires $module $version: say so in CHANGELOG.md, under Required, as $entry" >&2
		missing=1
	fi
done < <(sed -n '/^require (/,/^)/p' go.mod | grep -E '^\s')
exit $missing
