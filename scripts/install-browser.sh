#!/usr/bin/env bash
# Installs the headless browser in which the live page is tested and drawn, where there is none:
# Chromium or Chrome in PATH, or the one that BROWSER_PATH names.
set -euo pipefail

[[ -n ${BROWSER_PATH:-} ]] && exit 0
for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
	command -v "$name" >/dev/null && exit 0
done
echo 'Installs Debian packages: chromium fonts-liberation, about 120 MB with all that it needs.'
exec "$(dirname "${BASH_SOURCE[0]}")/apt-install.sh" 'The tests of the live page' chromium fonts-liberation
