package integration

import (
	"database/sql"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

// TestSupportPageHasTheVersionsOfTheseServers holds the page's row of this system against
// the servers that run. On a system without a row, it only says what they are.
func TestSupportPageHasTheVersionsOfTheseServers(t *testing.T) {
	mariadb := regexp.MustCompile(`^[0-9]+\.[0-9]+`).FindString(version(t, maria, "SELECT VERSION()"))
	postgresql := regexp.MustCompile(`^[0-9]+`).FindString(version(t, postgres, "SHOW server_version"))
	require.NotEmpty(t, mariadb)
	require.NotEmpty(t, postgresql)
	said, err := exec.Command("pgbouncer", "--version").Output()
	require.NoError(t, err)
	bouncer := regexp.MustCompile(`[0-9]+\.[0-9]+`).FindString(string(said))
	t.Logf("MariaDB %s, PostgreSQL %s and PgBouncer %s on %s", mariadb, postgresql, bouncer, system(t))

	page, err := os.ReadFile("../docs/support.md")
	require.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^\| (Debian [0-9]+) \| (\S+) \| (\S+) \| (\S+) \|$`).FindAllStringSubmatch(string(page), -1)
	require.NotEmpty(t, rows)
	for _, row := range rows {
		if row[1] == system(t) {
			assert.Equal(t, mariadb, row[2])
			assert.Equal(t, postgresql, row[3])
			assert.Equal(t, bouncer, row[4])
		}
	}
}

// version is what a server says that it is.
func version(t *testing.T, of *servers.Server, query string) (version string) {
	db, err := sql.Open(of.Driver, of.DSN(""))
	require.NoError(t, err)
	require.NoError(t, db.QueryRow(query).Scan(&version))
	require.NoError(t, db.Close())
	return version
}

// system is this one, such as "Debian 12".
func system(t *testing.T) string {
	text, err := os.ReadFile("/etc/os-release")
	require.NoError(t, err)
	id := regexp.MustCompile(`(?m)^ID=(.*)$`).FindStringSubmatch(string(text))
	number := regexp.MustCompile(`(?m)^VERSION_ID="(.*)"$`).FindStringSubmatch(string(text))
	if id == nil || number == nil || id[1] != "debian" {
		return "another system than Debian"
	}
	return "Debian " + number[1]
}
