#!/usr/bin/env bash
# Installs Debian packages: apt-install.sh <who needs them> <package>...
# Services that come with them are neither started nor enabled.
set -euo pipefail
who=$1
shift

if ! command -v apt-get >/dev/null || [[ $(id -u) -ne 0 ]]; then
	echo "$who need $*. As root on Debian: apt-get install $*" >&2
	exit 1
fi

# Debian starts a service that it installs, unless this file forbids it.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
if command -v systemctl >/dev/null; then # packages enable their services for the next boot
	for package in "$@"; do
		systemctl disable --quiet "${package%-server}.service"
	done
fi
