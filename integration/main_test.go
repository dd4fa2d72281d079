// Package integration runs sqllease on real servers and real drivers. The
// servers are private: made in a temporary directory, started on loopback and
// stopped by the tests.
package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-sql-driver/mysql"
	"go.uber.org/goleak"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

// maria and postgres are the servers of all tests.
var maria, postgres *servers.Server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	_ = mysql.SetLogger(&mysql.NopLogger{}) // it tells every cut connection, of which there are many here
	dir, err := os.MkdirTemp("", "sqllease")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the servers run as users of their own
		return fail(err)
	}
	if maria, err = servers.MariaDB(filepath.Join(dir, "mariadb")); err != nil {
		return fail(err)
	}
	defer maria.Stop()
	if postgres, err = servers.PostgreSQL(filepath.Join(dir, "postgres")); err != nil {
		return fail(err)
	}
	defer postgres.Stop()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			return fail(err)
		}
	}
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "integration:", err)
	return 1
}
