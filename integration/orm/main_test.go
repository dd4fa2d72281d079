// Package orm runs the libraries that people put on database/sql, each on a
// wrapped *sql.DB and on real servers: it does with each what applications do
// with it, and looks afterwards for what it left behind.
package orm

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
	_ = mysql.SetLogger(&mysql.NopLogger{}) // it tells every connection that a cancelled context cut
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
		if err := goleak.Find(gormsOwn); err != nil {
			return fail(err)
		}
	}
	return code
}

// gormsOwn is the goroutine with which GORM forgets prepared statements after
// a day. There is one per gorm.Open with PrepareStmt, and nothing ends it.
var gormsOwn = goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1")

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "orm:", err)
	return 1
}
