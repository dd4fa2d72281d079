#!/usr/bin/env bash
# Installs the database servers and proxies that the integration tests start for
# themselves, where they are missing.
set -euo pipefail

have_mariadb() { command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null; }
have_postgres() { command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
have_pgbouncer() { command -v pgbouncer >/dev/null; }
have_haproxy() { command -v haproxy >/dev/null; }

missing=()
have_mariadb || missing+=(mariadb-server)
have_postgres || missing+=(postgresql)
have_pgbouncer || missing+=(pgbouncer)
have_haproxy || missing+=(haproxy)
[[ ${#missing[@]} -eq 0 ]] && exit 0
echo "Installs Debian packages: ${missing[*]}, up to 90 MB with all that they need. They are not started as services."
exec "$(dirname "${BASH_SOURCE[0]}")/apt-install.sh" 'The integration tests' "${missing[@]}"
