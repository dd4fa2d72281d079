package integration

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// What passes from one holder of a session to the next, on the real servers: each
// scene is played bare and wrapped, by many callers on few sessions, and counts what an
// application must not see.

const (
	holdersLimit   = 3
	holdersCallers = 30
	holdersRounds  = 40
)

// holders opens a database with a limit and as many idle connections.
type holders struct {
	name string
	open func(t *testing.T, s *servers.Server, params string, limit int) *sql.DB
}

var bothHolders = []holders{
	{"bare", func(t *testing.T, s *servers.Server, params string, limit int) *sql.DB {
		db, err := sql.Open(s.Driver, s.DSN("")+params)
		require.NoError(t, err)
		db.SetMaxOpenConns(limit)
		db.SetMaxIdleConns(limit)
		t.Cleanup(func() { _ = db.Close() })
		return db
	}},
	{"wrapped", func(t *testing.T, s *servers.Server, params string, limit int) *sql.DB {
		db, err := sqllease.Open(s.Driver, s.DSN("")+params, sqllease.Config{MaxOpen: limit})
		require.NoError(t, err)
		t.Cleanup(func() { _ = db.Close() })
		return db
	}},
}

// crowd runs f by many callers, many times each, and counts how often it is true.
func crowd(t *testing.T, callers, rounds int, f func(caller, round int) (bool, error)) (counted int64) {
	t.Helper()
	var n, errs atomic.Int64
	var first atomic.Value
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for j := range rounds {
				is, err := f(i, j)
				if err != nil {
					errs.Add(1)
					first.CompareAndSwap(nil, err.Error())
				}
				if is {
					n.Add(1)
				}
			}
		})
	}
	all.Wait()
	assert.Zero(t, errs.Load(), "the first: %v", first.Load())
	return n.Load()
}

// tenants makes two databases with a table each that says which it is.
func tenants(t *testing.T) {
	t.Helper()
	admin, err := sql.Open(maria.Driver, maria.DSN(""))
	require.NoError(t, err)
	defer func() { assert.NoError(t, admin.Close()) }()
	for _, name := range []string{"t1", "t2"} {
		for _, statement := range []string{"CREATE DATABASE IF NOT EXISTS " + name, "CREATE OR REPLACE TABLE " + name + ".who (name TEXT)", "INSERT INTO " + name + ".who VALUES ('" + name + "')"} {
			_, err := admin.Exec(statement)
			require.NoError(t, err)
		}
	}
}

const who = "SELECT name FROM who WHERE 1 = ?"

// otherTenant tells whether a statement that was prepared in a database reads another.
func otherTenant(ctx context.Context, conn *sql.Conn, database string, closes bool) (bool, error) {
	if _, err := conn.ExecContext(ctx, "USE "+database); err != nil {
		return false, err
	}
	st, err := conn.PrepareContext(ctx, who)
	if err != nil {
		return false, err
	}
	if closes {
		defer func() { _ = st.Close() }()
	}
	var name string
	err = st.QueryRowContext(ctx, 1).Scan(&name)
	return name != database && err == nil, err
}

func TestNobodyReadsTheRowsOfAnotherTenant(t *testing.T) {
	tenants(t)
	for _, h := range bothHolders {
		t.Run(h.name, func(t *testing.T) {
			database := func(caller, round int) string { return fmt.Sprintf("t%d", 1+(caller+round)%2) }
			onConn := func(db *sql.DB, closes bool) func(int, int) (bool, error) {
				return func(caller, round int) (bool, error) {
					conn, err := db.Conn(t.Context())
					if err != nil {
						return false, err
					}
					defer func() { _ = conn.Close() }()
					return otherTenant(t.Context(), conn, database(caller, round), closes)
				}
			}
			db := h.open(t, maria, "", holdersLimit)
			assert.Zero(t, crowd(t, holdersCallers, holdersRounds, onConn(db, false)), "statements that are not closed")
			require.NoError(t, db.Close())

			db = h.open(t, maria, "", holdersLimit)
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			_, err = conn.ExecContext(t.Context(), "USE t1")
			require.NoError(t, err)
			require.NoError(t, conn.Close())
			long, err := db.Prepare("SELECT 1 FROM mysql.user WHERE 1 = ?")
			require.NoError(t, err)
			assert.Zero(t, crowd(t, holdersCallers, holdersRounds, func(caller, round int) (bool, error) {
				if caller%3 == 0 {
					rows, err := long.QueryContext(t.Context(), 0)
					if err == nil {
						err = rows.Close()
					}
					return false, err
				}
				return onConn(db, true)(caller, round)
			}), "all closed, beside a long-lived one")
			require.NoError(t, long.Close())

			assert.Zero(t, crowd(t, holdersCallers, holdersRounds, func(caller, round int) (bool, error) {
				tx, err := db.BeginTx(t.Context(), nil)
				if err != nil {
					return false, err
				}
				defer func() { _ = tx.Rollback() }()
				want := database(caller, round)
				if _, err := tx.Exec("USE " + want); err != nil {
					return false, err
				}
				var name string
				err = tx.QueryRow(who, 1).Scan(&name)
				return name != want && err == nil, err
			}), "in transactions")
		})
	}
}

// A plan that the server does not accept any more is not used again and again.
func TestABrokenStatementIsNotShared(t *testing.T) {
	admin, err := sql.Open(postgres.Driver, postgres.DSN(""))
	require.NoError(t, err)
	defer func() { assert.NoError(t, admin.Close()) }()
	for _, driverName := range []string{"pgx", "postgres"} {
		failed := map[string]int64{}
		for _, h := range bothHolders {
			_, err = admin.Exec("DROP TABLE IF EXISTS grows; CREATE TABLE grows (a INT); INSERT INTO grows VALUES (1)")
			require.NoError(t, err)
			s := *postgres
			s.Driver = driverName
			db := h.open(t, &s, "", holdersLimit)
			var n atomic.Int64
			crowd(t, holdersCallers, holdersRounds, func(caller, round int) (bool, error) {
				if caller == 0 && round%10 == 5 {
					_, err := admin.Exec(fmt.Sprintf("ALTER TABLE grows ADD COLUMN c%d INT", round))
					return false, err
				}
				st, err := db.Prepare("SELECT * FROM grows WHERE a = $1")
				if err != nil {
					return false, err
				}
				defer func() { _ = st.Close() }()
				rows, err := st.Query(1)
				if err == nil {
					for rows.Next() {
					}
					err = rows.Err()
					_ = rows.Close()
				}
				if err != nil {
					n.Add(1)
				}
				return false, nil
			})
			failed[h.name] = n.Load()
			require.NoError(t, db.Close())
		}
		t.Logf("%s: uses that failed while columns were added: bare %d, wrapped %d", driverName, failed["bare"], failed["wrapped"])
		assert.LessOrEqual(t, failed["wrapped"], failed["bare"]+4*2*holdersLimit, "at most one for each session, statement and change")
	}
}

func TestATemporaryTableOfARequest(t *testing.T) {
	for _, h := range bothHolders {
		t.Run(h.name, func(t *testing.T) {
			db := h.open(t, postgres, "", holdersLimit)
			assert.Zero(t, crowd(t, holdersCallers, holdersRounds, func(caller, round int) (bool, error) {
				tx, err := db.Begin()
				if err != nil {
					return false, err
				}
				defer func() { _ = tx.Rollback() }()
				if _, err := tx.Exec(fmt.Sprintf("CREATE TEMPORARY TABLE mine ON COMMIT DROP AS SELECT %d AS n", caller)); err != nil {
					return false, err
				}
				st, err := tx.Prepare("SELECT n FROM mine WHERE 1 = $1")
				if err != nil {
					return false, err
				}
				var n int
				err = st.QueryRow(1).Scan(&n)
				return n != caller && err == nil, err
			}))
		})
	}
}

// What the session forgets, everybody has to forget.
func TestStatementsAfterTheSessionDiscardedThem(t *testing.T) {
	for _, h := range bothHolders {
		t.Run(h.name, func(t *testing.T) {
			s := *postgres
			s.Driver = "postgres"
			db := h.open(t, &s, "", holdersLimit)
			var failed atomic.Int64
			crowd(t, 8, holdersRounds, func(int, int) (bool, error) {
				conn, err := db.Conn(t.Context())
				if err != nil {
					return false, err
				}
				defer func() { _ = conn.Close() }()
				st, err := conn.PrepareContext(t.Context(), "SELECT 1 WHERE 1 = $1")
				if err != nil {
					return false, err
				}
				var n int
				if err := st.QueryRow(1).Scan(&n); err != nil {
					failed.Add(1)
				}
				_, err = conn.ExecContext(t.Context(), "DISCARD ALL")
				return false, err
			})
			assert.Zero(t, failed.Load())
		})
	}
}

// status reads a number that MariaDB keeps.
func status(t *testing.T, admin *sql.DB, name string) (n int) {
	t.Helper()
	var ignored string
	require.NoError(t, admin.QueryRow("SHOW GLOBAL STATUS LIKE '"+name+"'").Scan(&ignored, &n))
	return n
}

func TestStatementsThatWereClosedDoNotStayOnTheServer(t *testing.T) {
	admin, err := sql.Open(maria.Driver, maria.DSN(""))
	require.NoError(t, err)
	defer func() { assert.NoError(t, admin.Close()) }()
	for _, h := range bothHolders {
		before := status(t, admin, "Prepared_stmt_count")
		db := h.open(t, maria, "", 10)
		most := 0
		crowd(t, 50, 100, func(caller, round int) (bool, error) {
			if caller == 0 && round%10 == 0 {
				most = max(most, status(t, admin, "Prepared_stmt_count")-before)
			}
			st, err := db.Prepare(fmt.Sprintf("SELECT %d + ?", caller*1000+round))
			if err != nil {
				return false, err
			}
			defer func() { _ = st.Close() }()
			var n int
			return false, st.QueryRow(1).Scan(&n)
		})
		assert.Eventually(t, func() bool { return status(t, admin, "Prepared_stmt_count")-before == 0 }, 30*time.Second, 50*time.Millisecond, h.name)
		t.Logf("%s: 5000 texts, each prepared, used and closed by 50 callers on 10 sessions: at most %d on the server at once", h.name, most)
		require.NoError(t, db.Close())
	}
}

func TestManyStatementsInUseAreNotPreparedAgainAndAgain(t *testing.T) {
	const statements, limit = 300, 10
	admin, err := sql.Open(maria.Driver, maria.DSN(""))
	require.NoError(t, err)
	defer func() { assert.NoError(t, admin.Close()) }()
	for _, h := range bothHolders {
		db := h.open(t, maria, "", limit)
		var all [statements]*sql.Stmt
		before := status(t, admin, "Com_stmt_prepare")
		for i := range all {
			all[i], err = db.Prepare(fmt.Sprintf("SELECT %d + ?", i))
			require.NoError(t, err)
		}
		start := time.Now()
		crowd(t, 50, 400, func(caller, round int) (bool, error) {
			var n int
			return false, all[(caller*37+round*17)%statements].QueryRow(1).Scan(&n)
		})
		took, prepared := time.Since(start), status(t, admin, "Com_stmt_prepare")-before
		t.Logf("%s: 20,000 uses of %d statements by 50 callers on %d sessions: %d prepared, %v", h.name, statements, limit, prepared, took.Round(time.Millisecond))
		assert.LessOrEqual(t, prepared, 2*statements*limit, "once on each session, and those again that were closed too soon")
		require.NoError(t, db.Close())
	}
}

func TestTheServersLastPlaceForAStatementIsFound(t *testing.T) {
	admin, err := sql.Open(maria.Driver, maria.DSN(""))
	require.NoError(t, err)
	defer func() { assert.NoError(t, admin.Close()) }()
	var most int
	require.NoError(t, admin.QueryRow("SELECT @@global.max_prepared_stmt_count").Scan(&most))
	defer func() {
		_, err := admin.Exec(fmt.Sprintf("SET GLOBAL max_prepared_stmt_count = %d", most))
		assert.NoError(t, err)
	}()
	require.Eventually(t, func() bool { // connections of other tests may still be ending
		var name string
		var left int
		return admin.QueryRow("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'").Scan(&name, &left) == nil && left == 0
	}, patience, 10*time.Millisecond)
	_, err = admin.Exec("SET GLOBAL max_prepared_stmt_count = 20")
	require.NoError(t, err)
	db := bothHolders[1].open(t, maria, "", holdersLimit)
	crowd(t, 6, 50, func(caller, round int) (bool, error) {
		st, err := db.Prepare(fmt.Sprintf("SELECT %d + ?", caller*1000+round))
		if err != nil {
			return false, err
		}
		defer func() { _ = st.Close() }()
		var n int
		return false, st.QueryRow(1).Scan(&n)
	})
}

// MinIdle's sessions are old, too, once the server was restarted.
func TestNoErrBadConnAfterSessionsWereEnded(t *testing.T) {
	for _, s := range []*servers.Server{maria, postgres} {
		drivers := []string{s.Driver}
		if s == postgres {
			drivers = append(drivers, "postgres")
		}
		for _, name := range drivers {
			server := *s
			server.Driver = name
			t.Run(name, func(t *testing.T) {
				admin, err := sql.Open(s.Driver, s.DSN(""))
				require.NoError(t, err)
				defer func() { assert.NoError(t, admin.Close()) }()
				db, err := sqllease.Open(name, server.DSN(""), sqllease.Config{MaxOpen: 10, MinIdle: 4})
				require.NoError(t, err)
				defer func() { _ = db.Close() }()
				for range 20 {
					require.Eventually(t, func() bool {
						c, _ := sqllease.ConnectorOf(db)
						return c.Stats().Idle >= 4
					}, 10*time.Second, time.Millisecond)
					endSessions(t, admin, s == postgres)
					var n int
					if err := db.QueryRow("SELECT 1").Scan(&n); err != nil { // what a driver says of a cut that it meets, it says bare as well
						require.NotErrorIs(t, err, driver.ErrBadConn)
					}
				}
			})
		}
	}
}

// endSessions ends all sessions but the one that it uses.
func endSessions(t *testing.T, admin *sql.DB, isPostgres bool) {
	t.Helper()
	if isPostgres {
		_, err := admin.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")
		require.NoError(t, err)
		return
	}
	rows, err := admin.Query("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user <> 'system user'")
	require.NoError(t, err)
	var ids []int
	for rows.Next() {
		var id int
		require.NoError(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(t, rows.Close())
	for _, id := range ids {
		_, _ = admin.Exec(fmt.Sprintf("KILL %d", id)) // it may be gone
	}
}
