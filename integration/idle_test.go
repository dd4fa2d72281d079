package integration

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"net"
	"net/url"
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

// idleSpread is how far idle times are around the limit.
const idleSpread = 20 * time.Millisecond

var idleUses = flag.Int("idle-uses", 0, "how often sessions are used around the server's idle limit, in each way; 0: a few times each")

// way is how a client comes to its server.
type way struct {
	name, dsn string
	mustFail  bool // the bare driver
}

// TestNoSessionIsUsedNearTheServersIdleLimit leaves many sessions idle for
// times spread tightly around MariaDB's wait_timeout, and uses them. With the
// bare driver some uses fail, and, across a network, many: what is on its way
// cannot be seen. Through sqllease none does.
func TestNoSessionIsUsedNearTheServersIdleLimit(t *testing.T) {
	const params = "/mysql?wait_timeout=1&checkConnLiveness=%t"
	proxied := delayProxy(t, maria.Addr, 5*time.Millisecond)
	var ways []way
	for _, check := range []bool{true, false} {
		params := fmt.Sprintf(params, check)
		ways = append(ways, way{fmt.Sprintf("TCP, liveness check %t", check), "root@tcp(" + maria.Addr + ")" + params, false},
			way{fmt.Sprintf("TCP, 5 ms each way, liveness check %t", check), "root@tcp(" + proxied + ")" + params, true})
	}
	ways = append(ways, way{"socket, liveness check true", "root@unix(" + maria.Socket + ")" + fmt.Sprintf(params, true), false})
	useNearLimits(t, "mysql", ways, 250, 4, time.Second)
}

// TestNoSessionIsUsedNearPostgresIdleLimit is the same on PostgreSQL, whose processes take
// their time to start.
func TestNoSessionIsUsedNearPostgresIdleLimit(t *testing.T) {
	const limit = 3 * time.Second
	sessions := 40
	if *idleUses > 0 {
		sessions = 80
	}
	const params = "&options=-c%20idle_session_timeout%3D3000"
	dsn := postgres.DSN("") + params
	db, err := sqllease.Open("pgx", dsn, sqllease.Config{})
	require.NoError(t, err)
	c, _ := sqllease.ConnectorOf(db)
	require.NoError(t, c.Ready(t.Context()))
	assert.Equal(t, limit, c.Stats().IdleLimit)
	require.NoError(t, db.Close())
	_, port, err := net.SplitHostPort(postgres.Addr)
	require.NoError(t, err)
	useNearLimits(t, "pgx", []way{
		{"TCP", dsn, false},
		{"socket", "postgres://postgres@/postgres?sslmode=disable&host=" + url.QueryEscape(postgres.Socket) + "&port=" + port + params, false},
	}, sessions, 1, limit)
}

// useNearLimits uses sessions around their limit in each way, and prints the errors that an
// application sees.
func useNearLimits(t *testing.T, driver string, ways []way, sessions, rounds int, limit time.Duration) {
	rounds = max(rounds, *idleUses/sessions)
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "way\tuses\terrors, bare\terrors, sqllease\t")
	for _, way := range ways {
		var bare, wrapped int64
		for range rounds {
			bare += inSomeRound(t, func() (*sql.DB, error) { return sql.Open(driver, way.dsn) }, sessions, limit)
			wrapped += inSomeRound(t, func() (*sql.DB, error) { return sqllease.Open(driver, way.dsn, sqllease.Config{}) }, sessions, limit)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t\n", way.name, sessions*rounds, bare, wrapped)
		assert.Zero(t, wrapped, "%s: through sqllease no use fails", way.name)
		if way.mustFail {
			assert.NotZero(t, bare, "%s: the bare driver never failed, so that this proves nothing", way.name)
		}
	}
	require.NoError(t, w.Flush())
	t.Logf("uses of sessions left idle for the server's limit ± %v:\n%s", idleSpread, table.String())
}

// inSomeRound does a round; again, where the machine was too busy to have all sessions in time.
func inSomeRound(t *testing.T, open func() (*sql.DB, error), n int, limit time.Duration) (failed int64) {
	t.Helper()
	for range 20 {
		if failed, late := inRound(t, open, n, limit); !late {
			return failed
		}
	}
	require.FailNow(t, "the machine is too busy to have all sessions within the server's limit")
	return 0
}

// inRound takes n sessions at once, gives them back at times that are spread
// over twice idleSpread, and uses all of them when the middle one has been
// idle for the limit. late: the server ended some before they were given back.
func inRound(t *testing.T, open func() (*sql.DB, error), n int, limit time.Duration) (failed int64, late bool) {
	db, err := open()
	require.NoError(t, err)
	defer func() { _ = db.Close() }() // to say goodbye to a server that has hung up is an error
	db.SetMaxIdleConns(n)
	conns := make([]*sql.Conn, n)
	var lost atomic.Bool
	var dialing sync.WaitGroup
	room := make(chan struct{}, 25) // a server takes so many handshakes at once
	for i := range conns {
		room <- struct{}{}
		dialing.Go(func() {
			defer func() { <-room }()
			conn, err := db.Conn(context.Background())
			if err == nil {
				_, err = conn.ExecContext(context.Background(), "SELECT 1")
				conns[i] = conn
			}
			if err != nil {
				lost.Store(true)
			}
		})
	}
	dialing.Wait()
	start := time.Now()
	var releasing sync.WaitGroup
	for i, conn := range conns {
		if conn == nil {
			continue
		}
		releasing.Go(func() {
			time.Sleep(time.Until(start.Add(2 * idleSpread * time.Duration(i) / time.Duration(n))))
			// The last traffic of a session is what its idle time counts from.
			if _, err := conn.ExecContext(context.Background(), "SELECT 1"); err != nil {
				lost.Store(true)
			}
			_ = conn.Close() // likewise
		})
	}
	releasing.Wait()
	if lost.Load() {
		return 0, true
	}
	time.Sleep(time.Until(start.Add(limit + idleSpread)))
	var bad atomic.Int64
	var using sync.WaitGroup
	for range n {
		using.Go(func() {
			if _, err := db.ExecContext(context.Background(), "SELECT 1"); err != nil {
				bad.Add(1)
			}
		})
	}
	using.Wait()
	return bad.Load(), false
}
