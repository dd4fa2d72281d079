#!/usr/bin/env bash
# Fails where a version cannot be tagged yet: check-release.sh v0.1.0. Says all
# that is wrong, not the first thing only. APIDIFF is the program that compares
# two versions of a Go API; make release-check builds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=${1:-}
if [[ ! $version =~ ^v[01]\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]]; then
	echo 'give the version: make release-check VERSION=v0.1.0 (from v2 on, the module needs another path)' >&2
	exit 1
fi

faults=0
fault() {
	printf 'release-check: %s\n' "$*" >&2
	faults=$((faults + 1))
}

[[ -z $(git status --porcelain) ]] || fault 'the work tree is not clean; commit everything, or start from a fresh clone'
! git rev-parse -q --verify "refs/tags/$version" >/dev/null || fault "$version is tagged already; a version is never tagged twice"

number=${version#v}
grep -Eqx "## \[$number\] - [0-9]{4}-[0-9]{2}-[0-9]{2}" CHANGELOG.md ||
	fault "CHANGELOG.md has no line '## [$number] - YYYY-MM-DD'"
grep -Fqx "[$number]: https://github.com/sqllease/sqllease/releases/tag/$version" CHANGELOG.md ||
	fault "CHANGELOG.md does not end with '[$number]: https://github.com/sqllease/sqllease/releases/tag/$version'"
grep -qx '## \[Unreleased\]' CHANGELOG.md || fault "CHANGELOG.md has no section '## [Unreleased]' for what comes next"

! grep -q '^replace' go.mod || fault 'go.mod has a replace directive, which nobody who requires the module gets'
go mod tidy -diff >/dev/null || fault 'go.mod is not tidy; run go mod tidy'
go mod verify >/dev/null || fault 'a module in the cache is not what go.sum says'
go vet ./... || fault 'go vet complains'
scripts/check-requirements.sh || fault 'CHANGELOG.md does not name what go.mod requires'
go run ./internal/tools/support docs/support.md || fault 'docs/support.md is not true'

# The API may lose or change something only where the version says so: in a new
# minor version before v1.0.0, and never from then on.
former=$(git tag --list 'v*' --sort=-version:refname | grep -v -- - | head -1 || true)
if [[ -n $former ]]; then
	work=$(mktemp -d)
	trap 'git worktree remove --force "$work/former"; rm -rf "$work"' EXIT
	git worktree add -q --detach "$work/former" "$former"
	(cd "$work/former" && "$APIDIFF" -w "$work/api" github.com/sqllease/sqllease)
	changes=$("$APIDIFF" "$work/api" github.com/sqllease/sqllease)
	printf 'The API since %s:\n%s\n' "$former" "${changes:-  as it was}"
	incompatible=$("$APIDIFF" -incompatible "$work/api" github.com/sqllease/sqllease)
	if [[ -n $incompatible ]] && [[ $former == v1.* || ${version%.*} == "${former%.*}" ]]; then
		fault "the API is not compatible with $former, and $version promises that it is"
	fi
else
	echo 'There is no former version to compare the API with.'
fi

if [[ $faults -gt 0 ]]; then
	echo "release-check: $version cannot be tagged yet" >&2
	exit 1
fi
printf '%s can be tagged once .ci/run has passed: see docs/releasing.md\n' "$version"
