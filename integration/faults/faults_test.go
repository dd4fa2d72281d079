package faults

import (
	"database/sql/driver"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// fault is a case: a row of the table.
type fault struct {
	name    string                                     // what happens
	server  func() *servers.Server                     // nil: the case has its own
	behind  func(s *scene) string                      // what is before the server; it returns its address. nil: nothing
	direct  bool                                       // nothing is between, not even a line
	through through                                    // the driver
	connect func(a *app, addr string) driver.Connector // in place of the driver's own; nil: that
	params  string                                     // more for the data source name
	size    int                                        // of the pools; zero: connections
	cfg     sqllease.Config                            // with sqllease
	play    func(s *scene)                             // what happens
	expect  expectation                                // of the application with sqllease
}

// expectation is what is asserted of a case.
type expectation int

const (
	// noWorse: with sqllease no more calls fail than without. A fault that hits every connection
	// at once fails the calls that are in flight, and chance says how many of the connections
	// have one: either application may have as many more than the other as there are connections.
	noWorse expectation = iota

	// prevented: with sqllease no call fails. Without it some do, or the case would prove nothing.
	prevented

	// noticed: the driver notices by itself that a connection is dead, and database/sql makes the
	// call again on another one. With sqllease it is the same. A starved machine may leave a
	// connection idle for longer than the test does, and then in use.
	noticed

	// survived: the server is away for a while, in which all calls fail that are made: how many
	// that are is chance. Afterwards none fails, but for those that meet with a connection that
	// has died meanwhile, of which there are as many as connections at most.
	survived

	// followed: each connection fails one call at most, and those that are checked out at the
	// time. Without sqllease, calls fail for as long as the connections live.
	followed

	// told: what happens is in the table, and is not asserted.
	told
)

func (e expectation) check(t *testing.T, bare, lease outcome) {
	switch e {
	case noWorse:
		assert.LessOrEqual(t, lease.failed, bare.failed+connections)
		assert.LessOrEqual(t, lease.late, bare.late+connections)
	case noticed:
		assert.LessOrEqual(t, lease.failed, bare.failed+1, lease.last)
	case prevented:
		assert.Zero(t, lease.failed, lease.last)
		assert.NotZero(t, bare.failed, "without sqllease no call failed, so that this proves nothing")
	case survived:
		assert.NotZero(t, bare.failed, "without sqllease no call failed, so that this proves nothing")
		assert.LessOrEqual(t, lease.late, connections, lease.last)
	case followed:
		assert.LessOrEqual(t, lease.failed, 3*connections, lease.last)
		assert.Greater(t, bare.failed, 2*lease.failed, "without sqllease it is hardly different, so that this proves nothing")
	case told:
	}
}

// run plays a case, and returns its row.
func (f fault) run(t *testing.T) row {
	s := stage(t, f)
	f.play(s)
	s.settled()
	bare, lease := s.bare.seen(), s.lease.seen()
	t.Logf("\n%s\n  bare:     %v\n  sqllease: %v", f.name, bare, lease)
	f.expect.check(t, bare, lease)
	return row{f.name, bare, lease}
}

// groups are the cases. Those of a group that is in order have servers that are theirs alone
// for a time; all others are played at once.
var groups = []struct {
	name    string
	inOrder bool
	faults  []fault
}{
	{"fragile MariaDB", true, slices.Concat(fragileMariaFaults, mariaFailovers)},
	{"MariaDB", false, mariaFaults},
	{"fragile PostgreSQL", true, slices.Concat(fragilePostgresFaults, postgresFailovers)},
	{"PostgreSQL", false, postgresFaults},
	{"network", false, networkFaults},
	{"proxies", false, proxyFaults},
	{"rotation", false, rotationFaults},
}

func TestFaults(t *testing.T) {
	rows := table{rows: map[string]row{}}
	t.Run("of", func(t *testing.T) {
		for _, g := range groups {
			t.Run(g.name, func(t *testing.T) {
				t.Parallel()
				for _, f := range g.faults {
					t.Run(f.name, func(t *testing.T) {
						if !g.inOrder {
							t.Parallel()
						}
						t.Cleanup(func() { rows.ended(t, f) })
						rows.add(f.run(t))
					})
				}
			})
		}
	})
	for _, b := range blocks {
		t.Logf("%s:\n%s", b.name, rows.text(b))
	}
	if len(rows.failed) > 0 {
		t.Logf("not as expected:\n%s", strings.Join(rows.failed, "\n"))
	}
	if *write {
		rows.write(t)
	}
}
