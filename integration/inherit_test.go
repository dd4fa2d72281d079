package integration

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// locked is a buffer for several goroutines.
type locked struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// What one caller leaves, the next one has; and the log says who left it.
func TestTheNextCallerInherits(t *testing.T) {
	for name, c := range map[string]struct {
		server *servers.Server
		driver string
		steps  []string
		kind   string
		asks   string // what the next caller sees
		sees   string // empty: the driver closes such a connection
	}{
		"MariaDB, a transaction":    {maria, "mysql", []string{"BEGIN"}, "transaction", "SELECT @@in_transaction", "1"},
		"MariaDB, a setting":        {maria, "mysql", []string{"SET SESSION time_zone = '+05:00'"}, "setting", "SELECT @@time_zone", "+05:00"},
		"MariaDB, a lock":           {maria, "mysql", []string{"SELECT GET_LOCK('inherited', 1)"}, "lock", "SELECT IS_USED_LOCK('inherited') = CONNECTION_ID()", "1"},
		"PostgreSQL, a transaction": {postgres, "postgres", []string{"BEGIN"}, "transaction", "SELECT now() < clock_timestamp() - interval '100 ms'", "true"},
		"PostgreSQL, a setting":     {postgres, "postgres", []string{"SET search_path TO inherited"}, "setting", "SHOW search_path", "inherited"},
		"PostgreSQL, a lock":        {postgres, "postgres", []string{"SELECT pg_try_advisory_lock(4711)"}, "lock", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "1"},
		"pgx, a transaction":        {postgres, "pgx", []string{"BEGIN"}, "transaction", "", ""},
		"pgx, a lock":               {postgres, "pgx", []string{"SELECT pg_advisory_lock(4712)"}, "lock", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			var log locked
			db, err := sqllease.Open(c.driver, c.server.DSN(""), sqllease.Config{MaxOpen: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			for _, step := range c.steps {
				rows, err := db.QueryContext(t.Context(), step)
				require.NoError(t, err)
				for rows.Next() {
				}
				require.NoError(t, rows.Err())
			}
			if c.asks == "" {
				require.NoError(t, db.PingContext(t.Context()))
				pool, _ := sqllease.ConnectorOf(db)
				assert.Equal(t, sqllease.ClosedStats{Invalid: 1}, pool.Stats().Closed, "it was not dead")
			} else {
				if c.kind == "transaction" { // a transaction has a time of its own
					require.Eventually(t, func() bool {
						var sees string
						return assert.NoError(t, db.QueryRowContext(t.Context(), c.asks).Scan(&sees)) && sees == c.sees
					}, 10*time.Second, 50*time.Millisecond)
				}
				var sees string
				require.NoError(t, db.QueryRowContext(t.Context(), c.asks).Scan(&sees))
				assert.Equal(t, c.sees, sees)
			}
			require.Eventually(t, func() bool { return bytes.Contains([]byte(log.String()), []byte("leftover.kind="+c.kind)) }, 10*time.Second, 10*time.Millisecond)
			assert.Contains(t, log.String(), "leftover.site=\"integration/inherit_test.go")
		})
	}
}
