#!/usr/bin/env bash
# Says what `make test` fetches before it fetches it: announce.sh <oldest go> <newest go>
set -euo pipefail
row() { printf '  %-40s%s\n' "$1" "$2"; }

echo 'make test fetches these where they are missing, 810 MB in all:'
row 'Go modules' '240 MB'
row "$1, $2, go1.27.0" '210 MB, as Go modules'
row 'mariadb-server, postgresql, pgbouncer, haproxy' '90 MB of Debian packages, by apt-get as root; not started as services'
row 'Prometheus' '150 MB of Go modules; built from source into .cache, some minutes on two cores'
row 'chromium, fonts-liberation' '120 MB of Debian packages, likewise'
echo 'make test-unit fetches only modules, and the newest Go among them.'
echo
