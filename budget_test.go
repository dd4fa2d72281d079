package sqllease

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// roomyFake is a server that says how many connections it has, and refuses more than some.
type roomyFake struct {
	clusterFake
	rows    [][]driver.Value
	refuse  error // nil: it does not
	most    int   // how many may be open then
	refused int   // guarded by mu: dials
	door    sync.Mutex
}

func (f *roomyFake) Connect(ctx context.Context) (driver.Conn, error) {
	f.door.Lock() // of two at once for whom there is one place, one is refused
	defer f.door.Unlock()
	if f.refuse != nil && f.isFull() {
		return nil, f.refuse
	}
	c, err := f.clusterFake.Connect(ctx)
	return roomyConn{c.(*clusterConn), f.rows}, err
}

func (f *roomyFake) isFull() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	open := 0
	for _, c := range f.conns {
		if !c.closed {
			open++
		}
	}
	if open >= f.most {
		f.refused++
	}
	return open >= f.most
}

type roomyConn struct {
	*clusterConn
	rows [][]driver.Value
}

func (c roomyConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &rowsFake{rows: c.rows}, nil
}

// pgFull is an error as PostgreSQL's drivers have it.
type pgFull struct{ text string }

func (e *pgFull) Error() string  { return e.text }
func (*pgFull) SQLState() string { return "53300" }

func hasConnections(n string) [][]driver.Value {
	return [][]driver.Value{{"wait_timeout", "28800"}, {"max_connections", n}}
}

func TestAPoolThatIsLargerThanItsServerIsWarnedOf(t *testing.T) {
	for name, c := range map[string]struct {
		cfg    Config
		needed int // zero: no warning
	}{
		"it fits":                   {Config{MaxOpen: 100}, 0},
		"just":                      {Config{MaxOpen: 50, Instances: 3}, 0},
		"not with all instances":    {Config{MaxOpen: 50, Instances: 4}, 200},
		"not even this one":         {Config{MaxOpen: 200}, 200},
		"without a limit who knows": {Config{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &keptLog{}
				c.cfg.Dialect, c.cfg.Logger = DialectMySQL, slog.New(log)
				db, pool := openPool(t, &roomyFake{rows: hasConnections("151")}, c.cfg)
				if c.cfg.MaxOpen == 0 {
					pool.SetMaxOpen(0)
				}
				require.NoError(t, pool.Ready(t.Context()))
				for range 3 { // it is said once
					elapse(time.Minute)
					useAndAsk(t, db)
				}
				records := log.take()
				if c.needed == 0 {
					assert.Empty(t, records)
					return
				}
				require.Len(t, records, 1)
				assert.Equal(t, []any{int64(c.needed), int64(151)}, []any{records[0].attrs["needed"], records[0].attrs["max_connections"]})
				db.SetMaxOpenConns(500)
				useAndAsk(t, db) // it is taken over
				elapse(time.Minute)
				useAndAsk(t, db)
				assert.Len(t, log.take(), 1, "and again for another limit")
			})
		})
	}
}

func TestTheErrorOfAFullServerSaysWhoseTheConnectionsAre(t *testing.T) {
	mine := &mysql.MySQLError{Number: 1040, Message: "Too many connections"}
	for name, c := range map[string]struct {
		said  error
		rows  [][]driver.Value
		limit string
		text  string
	}{
		"MySQL": {mine, hasConnections("151"), "server", `sqllease: pool "orders": all 151 connections of the server are taken: 2 by this pool, 149 by others. ` +
			`Lower Config.MaxOpen here or there, or raise max_connections: Error 1040: Too many connections`},
		"MySQL, which has not said how many": {mine, [][]driver.Value{{"wait_timeout", "0"}}, "server", `all connections of the server are taken: 2 by this pool.`},
		"one user's": {&mysql.MySQLError{Number: 1203, Message: "User joe already has more than 'max_user_connections' active connections"}, hasConnections("151"), "user",
			`the server has no more connections for this user; 2 are of this pool. Lower Config.MaxOpen, or raise the limit of the user: Error 1203`},
		"PostgreSQL":               {&pgFull{"sorry, too many clients already"}, hasConnections("100"), "server", "98 by others"},
		"PostgreSQL, a role's":     {&pgFull{`too many connections for role "joe"`}, nil, "user", "for this user"},
		"PostgreSQL, a database's": {&pgFull{`too many connections for database "shop"`}, nil, "database", "for this database"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &roomyFake{rows: c.rows, most: 2}
				db, pool := openPool(t, f, Config{Name: "orders", Dialect: DialectMySQL, MaxOpen: 10, Discovery: map[bool]*Discovery{true: NoDiscovery}[c.rows == nil]})
				require.NoError(t, pool.Ready(t.Context()))
				held := take(t, db, 2)
				f.refuse = c.said
				_, err := db.Conn(t.Context())
				var full *ServerFullError
				require.ErrorAs(t, err, &full)
				assert.Equal(t, []any{c.limit, 2}, []any{full.Limit, full.Ours})
				assert.ErrorContains(t, err, c.text)
				assert.ErrorIs(t, err, c.said, "the driver's is in it")
				giveBack(t, held...)
			})
		})
	}
}
