#!/usr/bin/env bash
# Says what `make test` fetches before it fetches it: announce.sh <oldest go> <newest go>
set -euo pipefail
cat <<END
make test fetches these, where they are missing. Only the packages are installed into the system.
  Go modules               240 MB
  $1 and $2   140 MB, as Go modules
  mariadb-server, postgresql
                           85 MB of Debian packages, by apt-get as root; they are not started as services
  Prometheus               built from source into .cache: 150 MB of Go modules, some minutes on two cores
make test-unit needs none but the modules.

END
