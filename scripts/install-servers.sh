#!/usr/bin/env bash
# Installs the database servers that the integration tests start for
# themselves, where they are missing. The system's own services are neither
# started nor enabled.
set -euo pipefail

have_mariadb() { command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null; }
have_postgres() { command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }

missing=()
have_mariadb || missing+=(mariadb-server)
have_postgres || missing+=(postgresql)
[[ ${#missing[@]} -eq 0 ]] && exit 0

if ! command -v apt-get >/dev/null || [[ $(id -u) -ne 0 ]]; then
	echo "The integration tests need ${missing[*]}. As root on Debian: apt-get install ${missing[*]}" >&2
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
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
if command -v systemctl >/dev/null; then # the packages enable their services for the next boot
	for package in "${missing[@]}"; do
		systemctl disable --quiet "${package%-server}.service"
	done
fi
