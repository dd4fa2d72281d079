#!/usr/bin/env bash
# Brings about the deadlock that Go 1.27.0 has in database/sql (https://github.com/golang/go/issues/81043),
# and looks whether the report of sqllease names it. It is a race that few machines lose soon, so the copy of
# database/sql that is compiled here yields where it happens; nothing else of it is changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$(GOTOOLCHAIN=go1.27.0 go env GOROOT)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp -as "$root/." "$dir"
copy=$dir/src/database/sql/closemu.go
rm "$copy"
sed -e 's/^\t"sync"$/\t"runtime"\n&/' \
	-e '/) Lock() {/,/^}/ { /x := m.state.Load()/ s/$/\n\t\truntime.Gosched()/; s/^\t\t\/\/ Set writer waiting bit.*/\t\truntime.Gosched()\n&/ }' \
	"$root/src/database/sql/closemu.go" >"$copy"
if [ "$(diff "$root/src/database/sql/closemu.go" "$copy" | grep -c '^>')" != 3 ]; then
	echo 'stuck.sh: closemu.go of Go 1.27.0 is not what it was' >&2
	exit 1
fi
GOROOT=$dir GOTOOLCHAIN=local "$dir/bin/go" run ./internal/tools/stuck
