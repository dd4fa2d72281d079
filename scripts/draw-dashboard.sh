#!/usr/bin/env bash
# Draws docs/dashboard-*.png from what Prometheus answered to the dashboard's
# queries (.cache/pictures/answers), with Grafana's own components in a headless
# Chromium. Node.js must be there; npm installs the components into .cache.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v chromium >/dev/null || scripts/apt-install.sh 'The pictures of the dashboard' chromium fonts-liberation
work=.cache/pictures
cp integration/e2e/pictures/* "$work/"
npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel error
node "$work/draw.mjs" dashboards/sqllease.json "$work/answers" docs
