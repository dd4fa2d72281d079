// Package sizing tries limits of pools on real servers, and asks the advisor. Its tables are in
// docs/sizing.md: make sizing.
package sizing

import (
	"flag"
	"os"
	"testing"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

// maria and postgres are the servers of all tests.
var maria, postgres *servers.Server

// write measures for long, and writes what was seen. Without it, each measurement is short, and only
// what does not depend on the machine is asserted.
var write = flag.Bool("write", false, "measure for some minutes, and write what was seen into "+document)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(servers.RunWith(m, start))
}
