#!/usr/bin/env bash
# Installs Prometheus and promtool, which prove the dashboard and the alert
# rules, where they are missing. The system's own service is neither started
# nor enabled.
set -euo pipefail

command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0

if ! command -v apt-get >/dev/null || [[ $(id -u) -ne 0 ]]; then
	echo 'The dashboard tests need prometheus and promtool. As root on Debian: apt-get install prometheus' >&2
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
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus
if command -v systemctl >/dev/null; then
	systemctl disable --quiet prometheus.service # the package enables it for the next boot
fi
