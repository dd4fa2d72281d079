#!/usr/bin/env bash
# Installs Prometheus and promtool, which prove the dashboard and the alert
# rules, where they are missing.
set -euo pipefail

command -v prometheus >/dev/null && command -v promtool >/dev/null && exit 0
exec "$(dirname "${BASH_SOURCE[0]}")/apt-install.sh" 'The dashboard tests' prometheus
