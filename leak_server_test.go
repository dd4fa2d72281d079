package sqllease

import (
	"database/sql"
	"database/sql/driver"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A transaction is reported before the server ends it for being idle, however late Config
// would have it reported: afterwards nobody could tell why it failed.
func TestATransactionIsReportedBeforeTheServerEndsIt(t *testing.T) {
	query := func(t *testing.T, db *sql.DB) io.Closer {
		conn := leakConn(t, db).(*sql.Conn)
		require.NoError(t, conn.PingContext(t.Context()))
		return conn
	}
	late := func(t *testing.T, db *sql.DB) io.Closer {
		conn := query(t, db).(*sql.Conn)
		leakPause(4 * time.Second)
		tx, err := conn.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		return leakTxCloser{tx}
	}
	for name, c := range map[string]struct {
		serverEnds string
		threshold  time.Duration
		hold       func(*testing.T, *sql.DB) io.Closer
		after      time.Duration
	}{
		"the server is sooner":            {"10s", 30 * time.Second, leakTx, 9 * time.Second},
		"within a second":                 {"1s", 30 * time.Second, leakTx, 500 * time.Millisecond},
		"Config is sooner":                {"10min", 30 * time.Second, leakTx, 30 * time.Second},
		"no transaction":                  {"10s", 30 * time.Second, query, 30 * time.Second},
		"a transaction that begins later": {"10s", 30 * time.Second, late, 13 * time.Second},
		"the server never ends it":        {"0", 30 * time.Second, leakTx, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newLeakPool(t, &leakFake{rows: [][]driver.Value{{"0", c.serverEnds}}}, Config{Dialect: DialectPostgreSQL, LeakThreshold: c.threshold})
				require.NoError(t, p.c.Ready(t.Context()))
				start := time.Now()
				held := c.hold(t, p.DB)
				leakPause(time.Until(start.Add(c.after - time.Millisecond)))
				assert.Empty(t, p.take())
				leakPause(2 * time.Millisecond)
				l := p.one(t)
				assert.InDelta(t, c.after, l.at.Sub(start), float64(time.Millisecond))
				require.NoError(t, held.Close())
			})
		})
	}
}
