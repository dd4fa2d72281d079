package sqllease

import (
	"database/sql"
	"database/sql/driver"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// On the wire: the real driver, and a server that ends idle sessions.

var lifetimeEndings = map[string]mysqlscript.Ending{
	"FIN": mysqlscript.FIN, "RST": mysqlscript.RST, "error 4031": mysqlscript.TimeoutError,
}

// lifetimeDriver is a connector of the real driver that does not look whether
// a connection is alive before it uses it: what keeps it from a session that
// the server has ended is the session's expiry alone.
func lifetimeDriver(t *testing.T, dsn string) driver.Connector {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	require.NoError(t, err)
	cfg.CheckConnLiveness = false
	c, err := mysql.NewConnector(cfg)
	require.NoError(t, err)
	return c
}

// lifetimeIdlers are pools of one session each on one server, used from time
// to time.
type lifetimeIdlers struct {
	server *mysqlscript.Server
	limit  time.Duration // the server's
	dbs    []*sql.DB
	pools  []*Connector
}

// lifetimePauses are the times for which they leave their session idle, in
// percent of the server's limit. Sessions are to end at half of it.
var lifetimePauses = []int{30, 44, 46, 48, 50, 52, 55, 70, 90, 97, 99, 100, 101, 103, 110}

func newLifetimeIdlers(t *testing.T, limit time.Duration, script mysqlscript.Script, cfg Config) *lifetimeIdlers {
	t.Helper()
	script.IdleLimit = limit
	i := &lifetimeIdlers{server: mysqlscript.Start(t, script), limit: limit}
	for range lifetimePauses {
		db, c := openPool(t, lifetimeDriver(t, i.server.DSN()), cfg)
		i.dbs, i.pools = append(i.dbs, db), append(i.pools, c)
	}
	return i
}

// use leaves the sessions idle for times around their expiry and around the
// server's limit, and uses them again. all is done when they are.
func (i *lifetimeIdlers) use(t *testing.T, all *sync.WaitGroup) {
	for n, percent := range lifetimePauses {
		db, pause := i.dbs[n], i.limit*time.Duration(percent)/100
		all.Go(func() {
			for turn := range 3 {
				if turn > 0 {
					elapse(pause)
				}
				_, err := db.ExecContext(t.Context(), "DO 1")
				assert.NoError(t, err, "after %v", pause)
			}
		})
	}
}

// check compares what the pools counted with what the server saw.
func (i *lifetimeIdlers) check(t *testing.T) {
	var opened, expired, closed uint64
	for n, c := range i.pools {
		require.NoError(t, i.dbs[n].Close())
		allClosed(t, c)
		s := c.Stats()
		assert.Equal(t, i.limit, s.IdleLimit)
		assert.Zero(t, s.DialErrors)
		assert.Zero(t, s.Closed.Dead(), "sessions were bad when they were used")
		opened += s.Dials
		expired += s.Closed.Retired()
		closed += s.Closed.Total()
	}
	n := i.server.Await(t, func(n mysqlscript.Counts) bool { return n.Open == 0 })
	assert.Zero(t, n.IdleEnded, "the server ended sessions that should have been closed before")
	assert.Equal(t, n.Opened, n.Quit, "sessions ended otherwise than by the client")
	assert.Equal(t, uint64(n.Opened), opened)
	assert.Equal(t, opened, closed)
	const often = 9 // pauses in which a session surely expires
	assert.GreaterOrEqual(t, expired, uint64(2*often))
}

// A server counts whole seconds. A limit of its own it announces; one that is not of
// whole seconds stands for something on the way.
func TestNoSessionIsUsedThatTheServerEndsForBeingIdle(t *testing.T) {
	cases := map[string]*lifetimeIdlers{}
	for name, ending := range lifetimeEndings {
		const below = 1900 * time.Millisecond // a slow machine may pause for half of it
		cases["network limit, "+name] = newLifetimeIdlers(t, below,
			mysqlscript.Script{IdleEnding: ending}, Config{NetworkIdleLimit: below})
		cases["discovered, "+name] = newLifetimeIdlers(t, 2*time.Second,
			mysqlscript.Script{IdleEnding: ending, WaitTimeout: mysqlscript.Number(2)}, Config{})
	}
	var all sync.WaitGroup
	for _, i := range cases {
		i.use(t, &all)
	}
	all.Wait() // all at once: the pauses are real time
	for name, i := range cases {
		t.Run(name, i.check)
	}
}

func TestASessionThatTheServerEndsInHandIsNotHandedOutAgain(t *testing.T) {
	for name, ending := range lifetimeEndings {
		t.Run(name, func(t *testing.T) {
			const limit = 300 * time.Millisecond
			server := mysqlscript.Start(t, mysqlscript.Script{IdleLimit: limit, IdleEnding: ending})
			db, c := openPool(t, lifetimeDriver(t, server.DSN()), Config{MaxOpen: 1, NetworkIdleLimit: limit})
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			server.Await(t, func(n mysqlscript.Counts) bool { return n.IdleEnded == 1 })
			waiter := make(chan error, 1)
			go func() {
				_, err := db.ExecContext(t.Context(), "DO 1")
				waiter <- err
			}()
			require.Eventually(t, func() bool { return c.Stats().Waiting == 1 }, 10*time.Second, time.Millisecond)
			require.NoError(t, conn.Close())
			require.NoError(t, <-waiter)
			assert.Equal(t, uint64(0), c.Stats().Handovers)
			assert.Equal(t, uint64(2), c.Stats().Dials)
		})
	}
}
