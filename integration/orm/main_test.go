// Package orm runs the libraries that people put on database/sql, each on a
// wrapped *sql.DB and on real servers: it does with each what applications do
// with it, and looks afterwards for what it left behind.
package orm

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

// maria and postgres are the servers of all tests.
var maria, postgres *servers.Server

func TestMain(m *testing.M) {
	os.Exit(servers.Run(m, func(a, b *servers.Server) { maria, postgres = a, b }, gormsOwn))
}

// gormsOwn is the goroutine with which GORM forgets prepared statements after
// a day. There is one per gorm.Open with PrepareStmt, and nothing ends it.
var gormsOwn = goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1")
