// Package faults has servers, proxies and networks misbehave, and compares what
// an application sees of it: through a bare driver, and through sqllease. Its
// table is in docs/lifetime.md.
package faults

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

// Two servers run for as long as the tests. The fragile two are stopped, killed
// and set anew on the way: one case at a time has them.
var maria, postgres, fragileMaria, fragilePostgres *servers.Server

// dir is where a case may put what its proxies need.
var dir string

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // most of the time a case waits
	os.Exit(servers.RunWith(m, start,
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgconn.(*PgConn).asyncClose.func1"))) // it asks a server to cancel, for 15 s at most
}

// start starts all four at once.
func start(in string) (stop func(), err error) {
	dir = in
	starts := []struct {
		name string
		make func(string) (*servers.Server, error)
		to   **servers.Server
	}{
		{"maria", servers.MariaDB, &maria}, {"fragile-maria", servers.MariaDB, &fragileMaria},
		{"postgres", servers.PostgreSQL, &postgres}, {"fragile-postgres", servers.PostgreSQL, &fragilePostgres},
	}
	errs := make([]error, len(starts))
	var all sync.WaitGroup
	for i, s := range starts {
		all.Go(func() { *s.to, errs[i] = s.make(filepath.Join(in, s.name)) })
	}
	all.Wait()
	stop = func() {
		for _, s := range starts {
			if *s.to != nil {
				(*s.to).Stop()
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}
