// Package integration runs sqllease on real servers and real drivers. The
// servers are private: made in a temporary directory, started on loopback and
// stopped by the tests.
package integration

import (
	"os"
	"testing"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

// maria and postgres are the servers of all tests.
var maria, postgres *servers.Server

func TestMain(m *testing.M) {
	os.Exit(servers.Run(m, func(a, b *servers.Server) { maria, postgres = a, b }))
}
