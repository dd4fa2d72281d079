package integration

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

const (
	idleSessions = 250
	idleRounds   = 6
	idleLimit    = time.Second
	idleSpread   = 20 * time.Millisecond // idle times around the limit
)

// TestNoSessionIsUsedNearTheServersIdleLimit leaves many sessions idle for
// times spread tightly around MariaDB's wait_timeout, and uses them. With the
// bare driver some uses fail, and, across a network, many: what is on its way
// cannot be seen. Through sqllease none does.
func TestNoSessionIsUsedNearTheServersIdleLimit(t *testing.T) {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "way\tliveness check\tuses\terrors, bare\terrors, sqllease\t")
	proxied := delayProxy(t, maria.Addr, 5*time.Millisecond)
	for _, way := range []struct {
		name, addr string
		mustFail   bool
	}{{"direct", maria.Addr, false}, {"5 ms each way", proxied, true}} {
		for _, check := range []bool{true, false} {
			dsn := fmt.Sprintf("root@tcp(%s)/mysql?wait_timeout=1&checkConnLiveness=%t", way.addr, check)
			bare := useNearLimit(t, func() (*sql.DB, error) { return sql.Open("mysql", dsn) })
			wrapped := useNearLimit(t, func() (*sql.DB, error) { return sqllease.Open("mysql", dsn, sqllease.Config{}) })
			fmt.Fprintf(w, "%s\t%t\t%d\t%d\t%d\t\n", way.name, check, idleSessions*idleRounds, bare, wrapped)
			assert.Zero(t, wrapped, "%s, check %t: through sqllease no use fails", way.name, check)
			if way.mustFail {
				assert.NotZero(t, bare, "%s, check %t: the bare driver never failed, so that this proves nothing", way.name, check)
			}
		}
	}
	require.NoError(t, w.Flush())
	t.Logf("uses of sessions left idle for wait_timeout ± %v:\n%s", idleSpread, table.String())
}

// TestPostgresIdleSessionTimeout is the same on PostgreSQL.
func TestPostgresIdleSessionTimeout(t *testing.T) {
	const limit = 3 * time.Second // a busy machine takes its time to dial them all
	dsn := postgres.DSN("") + "&options=-c%20idle_session_timeout%3D3000"
	open := func() (*sql.DB, error) { return sqllease.Open("pgx", dsn, sqllease.Config{}) }
	db, err := open()
	require.NoError(t, err)
	c, _ := sqllease.ConnectorOf(db)
	require.NoError(t, c.Ready(t.Context()))
	assert.Equal(t, limit, c.Stats().IdleLimit)
	require.NoError(t, db.Close())
	assert.Zero(t, inRound(t, open, 40, limit))
}

// useNearLimit does the rounds and counts the errors an application sees.
func useNearLimit(t *testing.T, open func() (*sql.DB, error)) (failed int64) {
	for range idleRounds {
		failed += inRound(t, open, idleSessions, idleLimit)
	}
	return failed
}

// inRound takes n sessions at once, gives them back at times that are spread
// over twice idleSpread, and uses all of them when the middle one has been
// idle for the limit.
func inRound(t *testing.T, open func() (*sql.DB, error), n int, limit time.Duration) int64 {
	db, err := open()
	require.NoError(t, err)
	defer func() { _ = db.Close() }() // to say goodbye to a server that has hung up is an error
	db.SetMaxIdleConns(n)
	conns := make([]*sql.Conn, n)
	var dialing sync.WaitGroup
	room := make(chan struct{}, 25) // a server takes so many handshakes at once
	for i := range conns {
		room <- struct{}{}
		dialing.Go(func() {
			defer func() { <-room }()
			conn, err := db.Conn(context.Background())
			if assert.NoError(t, err) {
				_, err = conn.ExecContext(context.Background(), "SELECT 1")
				assert.NoError(t, err)
				conns[i] = conn
			}
		})
	}
	dialing.Wait()
	require.False(t, t.Failed())
	start := time.Now()
	var releasing sync.WaitGroup
	for i, conn := range conns {
		releasing.Go(func() {
			time.Sleep(time.Until(start.Add(2 * idleSpread * time.Duration(i) / time.Duration(n))))
			// The last traffic of a session is what its idle time counts from.
			_, err := conn.ExecContext(context.Background(), "SELECT 1")
			assert.NoError(t, err)
			assert.NoError(t, conn.Close())
		})
	}
	releasing.Wait()
	time.Sleep(time.Until(start.Add(limit + idleSpread)))
	var failed atomic.Int64
	var using sync.WaitGroup
	for range n {
		using.Go(func() {
			if _, err := db.ExecContext(context.Background(), "SELECT 1"); err != nil {
				failed.Add(1)
			}
		})
	}
	using.Wait()
	return failed.Load()
}
