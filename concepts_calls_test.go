package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// More checks of what docs/concepts.md says: those of single calls, and of the order in which
// connections and callers come.

// usesTheLastFirst: the connection that was used last is used first.
func usesTheLastFirst(t *testing.T) {
	f := &gateFake{t: t}
	db, c := f.open(Config{MaxOpen: 3})
	held := take(t, db, 3)
	giveBack(t, held[2], held[0], held[1])
	for range 10 {
		conn := take(t, db, 1)[0]
		assert.Equal(t, 1, numberOf(t, conn))
		giveBack(t, conn)
	}
	f.end(db, c)
}

// servesInOrder: callers get connections in the order in which they came.
func servesInOrder(t *testing.T) {
	f := &gateFake{t: t, most: 1}
	db, c := f.open(Config{MaxOpen: 1})
	next := take(t, db, 1)[0]
	var queue []<-chan *sql.Conn
	for range 20 {
		queue = append(queue, comeFor(t.Context(), db))
	}
	for _, first := range queue {
		giveBack(t, next)
		next = <-first // if it were another's, this would wait for ever
	}
	giveBack(t, next)
	f.end(db, c)
}

// keepsItUntilTheTransactionEnds: a connection is not given back before its transaction ends,
// and the driver resets it before its next use.
func keepsItUntilTheTransactionEnds(t *testing.T) {
	var resets atomic.Int32
	f := &gateFake{t: t, most: 1, script: func(_ context.Context, _ *gateFakeConn, call string) error {
		if call == "reset" {
			resets.Add(1)
		}
		return nil
	}}
	db, c := f.open(Config{MaxOpen: 1, LeakThreshold: -1})
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	waiter := comeFor(t.Context(), db)
	elapse(time.Hour)
	assert.Equal(t, 1, c.Stats().Waiting)
	require.NoError(t, tx.Rollback())
	giveBack(t, <-waiter)
	assert.Equal(t, int32(1), resets.Load())
	f.end(db, c)
}

// closesTheIdle: db.SetMaxIdleConns closes the idle ones at once, and the pool goes on.
func closesTheIdle(t *testing.T) {
	f := &gateFake{t: t}
	db, c := f.open(Config{MaxOpen: 3})
	held := take(t, db, 3)
	giveBack(t, held[:2]...)
	db.SetMaxIdleConns(-1)
	db.SetMaxIdleConns(3)
	assert.Equal(t, []int{0, 1}, []int{c.Stats().Idle, c.Stats().InUse})
	giveBack(t, held[2])
	usable(t, db, 3)
	f.end(db, c)
}

// replacesAll: Connector.Flush closes the idle ones, and the others as they come back.
func replacesAll(t *testing.T) {
	f := &gateFake{t: t}
	db, c := f.open(Config{MaxOpen: 2})
	held := take(t, db, 2)
	giveBack(t, held[0])
	c.Flush(0)
	synctest.Wait()
	assert.Equal(t, 1, c.Stats().Open)
	giveBack(t, held[1])
	assert.Zero(t, c.Stats().Open)
	usable(t, db, 2)
	f.end(db, c)
}

// closesAll: db.Close ends the idle ones, and the others as they come back.
func closesAll(t *testing.T) {
	f := &gateFake{t: t}
	db, c := f.open(Config{MaxOpen: 2})
	held := take(t, db, 2)
	giveBack(t, held[0])
	require.NoError(t, db.Close())
	assert.Equal(t, 1, c.Stats().Open)
	giveBack(t, held[1])
	assert.Zero(t, c.Stats().Open)
}

// reportsTheTransaction: a transaction that nobody works in is reported after
// Config.LeakThreshold, before anybody who ends it later.
func reportsTheTransaction(t *testing.T) {
	p := newLeakPool(t, &leakFake{}, Config{LeakThreshold: 10 * time.Second})
	tx, err := p.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	leakPause(10 * time.Second)
	assert.True(t, p.one(t).InTx)
	require.NoError(t, tx.Rollback())
}

// optionsConn notes with which options transactions begin.
type optionsConn struct {
	*gateFakeConn
	got *[]driver.TxOptions
}

func (c optionsConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	*c.got = append(*c.got, o)
	return c.gateFakeConn.BeginTx(ctx, o)
}

// optionsFake is a driver of such connections.
type optionsFake struct {
	*gateFake
	got []driver.TxOptions
}

func (f *optionsFake) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := f.gateFake.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return optionsConn{conn.(*gateFakeConn), &f.got}, nil
}

// givesOptions: the options of a transaction reach the driver.
func givesOptions(t *testing.T) {
	f := &optionsFake{gateFake: &gateFake{t: t}}
	db, _ := openPool(t, f, Config{})
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
	require.NoError(t, err)
	require.NoError(t, tx.Commit())
	assert.Equal(t, []driver.TxOptions{{Isolation: driver.IsolationLevel(sql.LevelSerializable), ReadOnly: true}}, f.got)
}

// triesThrice: a call is made three times at most, and only if the driver says that it has
// not run.
func triesThrice(t *testing.T) {
	for err, want := range map[error]int32{driver.ErrBadConn: 3, errors.New("invalid connection"): 1} {
		var calls atomic.Int32
		f := &gateFake{t: t, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "exec" {
				calls.Add(1)
				return err
			}
			return nil
		}}
		db, c := f.open(Config{MaxOpen: 2})
		_, got := db.ExecContext(t.Context(), "DO 1")
		assert.ErrorIs(t, got, err)
		assert.Equal(t, want, calls.Load())
		f.end(db, c)
	}
}

// asksOnce: a connection is asked for its limits when it is new, and nothing afterwards.
func asksOnce(t *testing.T) {
	f := &lifetimeFake{announced: []any{lifetimeSeconds(28800)}}
	db, _ := openPool(t, f, Config{Dialect: DialectMySQL, MaxOpen: 1, MinIdle: 1})
	for range 600 {
		useOnce(t, db)
		elapse(time.Second)
	}
	assert.InDelta(t, 10, f.questions(), 1, "one a minute")
}

// runsNoGoroutine: an idle pool has none.
func runsNoGoroutine(t *testing.T) {
	f := &gateFake{t: t}
	db, c := f.open(Config{MaxOpen: 2, MinIdle: 1, MaxLifetime: time.Hour, NetworkIdleLimit: time.Hour})
	useOnce(t, db)
	synctest.Wait()
	assert.Zero(t, ownGoroutines(t))
	f.end(db, c)
}

// namedFake is a driver that keeps the data source names it gets.
type namedFake struct {
	telemetryFake
	mu  sync.Mutex
	got []string // guarded by mu
}

func (f *namedFake) Open(dsn string) (driver.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, dsn)
	return f.Connect(context.Background())
}

var namedFakes atomic.Int32

// opensByName: Open takes the driver's name and the data source name, OpenDB a connector.
func opensByName(t *testing.T) {
	f, name := &namedFake{}, fmt.Sprintf("foreign%d", namedFakes.Add(1))
	sql.Register(name, f)
	db, err := Open(name, "user:password@db/shop", Config{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	useOnce(t, db)
	require.NoError(t, db.Close())
	assert.Equal(t, []string{"user:password@db/shop"}, f.got)

	db, c := openPool(t, &telemetryFake{}, Config{})
	useOnce(t, db)
	assert.Equal(t, uint64(1), c.Stats().Dials)
}

// logsReports: Config.Logger gets reports and warnings, and nothing of a pool that works.
func logsReports(t *testing.T) {
	log := &keptLog{}
	p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 1, LeakThreshold: 10 * time.Second, Logger: slog.New(log)})
	for range 100 {
		useOnce(t, p.DB)
	}
	assert.Empty(t, log.take())
	conn := p.lease(t)
	leakPause(10 * time.Second)
	assert.Len(t, log.take(), 1)
	require.NoError(t, conn.Close())
}

// What keeps a connection, and what gives it back: the table of docs/concepts.md.
func TestWhatKeepsAConnectionAndWhatGivesItBack(t *testing.T) {
	for name, keeps := range map[string]func(t *testing.T, db *sql.DB) (back func() error){
		"rows, closed": func(t *testing.T, db *sql.DB) func() error {
			rows, err := db.QueryContext(t.Context(), "SELECT 1")
			require.NoError(t, err)
			require.NoError(t, rows.Err())
			return rows.Close
		},
		"rows, read": func(t *testing.T, db *sql.DB) func() error {
			rows, err := db.QueryContext(t.Context(), "SELECT 1") //nolint:sqlclosecheck // reading closes them
			require.NoError(t, err)
			return func() error {
				for rows.Next() || rows.NextResultSet() {
					continue
				}
				return rows.Err()
			}
		},
		"a row": func(t *testing.T, db *sql.DB) func() error {
			row := db.QueryRowContext(t.Context(), "SELECT 1")
			return func() error { return row.Scan(new(int)) }
		},
		"a transaction, committed": func(t *testing.T, db *sql.DB) func() error {
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			return tx.Commit
		},
		"a transaction, rolled back": func(t *testing.T, db *sql.DB) func() error {
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			return tx.Rollback
		},
		"a connection": func(t *testing.T, db *sql.DB) func() error { return take(t, db, 1)[0].Close },
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			f := &gateFake{t: t}
			db, c := f.open(Config{MaxOpen: 1})
			useOnce(t, db)
			assert.Zero(t, c.Stats().InUse)
			back := keeps(t, db)
			elapse(time.Second)
			assert.Equal(t, 1, c.Stats().InUse)
			require.NoError(t, back())
			assert.Zero(t, c.Stats().InUse)
			f.end(db, c)
		}))
	}
}
