package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What docs/concepts.md says is the equivalent of a setting of another pool does what that
// setting does. Each function here shows it of one equivalent; concepts_settings_test.go has
// the settings that it stands for.

// inBubble is a check in virtual time.
func inBubble(check func(t *testing.T)) func(*testing.T) {
	return func(t *testing.T) { synctest.Test(t, check) }
}

// numberOf is the number of a connection's session, of a gateFake.
func numberOf(t *testing.T, conn *sql.Conn) (n int) {
	t.Helper()
	require.NoError(t, conn.Raw(func(c any) error {
		fake, ok := Unwrap[*gateFakeConn](c)
		require.True(t, ok)
		n = fake.number
		return nil
	}))
	return n
}

// boundsConnections: Config.MaxOpen is how many connections there are at most, idle ones
// included; who comes then waits for one.
func boundsConnections(t *testing.T) {
	f := &gateFake{t: t, most: 3}
	db, c := f.open(Config{MaxOpen: 3})
	held := take(t, db, 3)
	fourth := comeFor(t.Context(), db)
	assert.Equal(t, 1, c.Stats().Waiting)
	giveBack(t, held[0])
	giveBack(t, <-fourth, held[1], held[2])
	assert.Equal(t, []int{3, 3}, []int{c.Stats().Idle, c.Stats().Open}, "they stay open")
	f.end(db, c)
}

// adoptsTheLimit: so is db.SetMaxOpenConns; without either there is no limit.
func adoptsTheLimit(t *testing.T) {
	f := &gateFake{t: t}
	db, c := f.open(Config{})
	assert.Zero(t, c.Stats().Limit)
	giveBack(t, take(t, db, 50)...)
	db.SetMaxOpenConns(3)
	held := take(t, db, 1)
	elapse(time.Second)
	held = append(held, take(t, db, 2)...)
	assert.Equal(t, 3, c.Stats().Limit)
	fourth := comeFor(t.Context(), db)
	assert.Equal(t, 1, c.Stats().Waiting)
	giveBack(t, held...)
	giveBack(t, <-fourth)
	assert.Equal(t, 2, c.Stats().Idle, "as many idle ones as database/sql keeps")
	f.end(db, c)
}

// keepsIdleOnes: with Config.MaxOpen as many stay open; db.SetMaxIdleConns says otherwise, and
// what is closed for it counts as surplus.
func keepsIdleOnes(t *testing.T) {
	f := &gateFake{t: t, most: 15}
	db, c := f.open(Config{MaxOpen: 15})
	db.SetMaxIdleConns(5)
	giveBack(t, take(t, db, 15)...)
	assert.Equal(t, []int{5, 5}, []int{c.Stats().Idle, c.Stats().Open})
	assert.Equal(t, uint64(10), c.Stats().Closed.Surplus)
	db.SetMaxIdleConns(-1)
	assert.Zero(t, c.Stats().Open)
	useOnce(t, db)
	assert.Zero(t, c.Stats().Open, "each is closed when it is given back")
	f.end(db, c)
}

// keepsReady: Config.MinIdle connections are ready before anybody asks, and beside those in use.
func keepsReady(t *testing.T) {
	f := &gateFake{t: t, most: 5}
	db, c := f.open(Config{MaxOpen: 5, MinIdle: 3})
	synctest.Wait()
	assert.Equal(t, 3, c.Stats().Idle)
	held := take(t, db, 2)
	synctest.Wait()
	assert.Equal(t, []int{3, 2}, []int{c.Stats().Idle, c.Stats().InUse})
	held = append(held, take(t, db, 2)...)
	synctest.Wait()
	assert.Equal(t, []int{1, 4}, []int{c.Stats().Idle, c.Stats().InUse}, "never more than MaxOpen")
	giveBack(t, held...)
	f.end(db, c)

	db, c = (&gateFake{t: t}).open(Config{MaxOpen: 5})
	synctest.Wait()
	assert.Zero(t, c.Stats().Open, "none without it")
	require.NoError(t, db.Close())
}

// boundsAcquires: after Config.AcquireTimeout an acquire fails, and says who has the
// connections; without it, the caller's context alone ends one.
func boundsAcquires(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{30 * time.Second: 30 * time.Second, 0: time.Hour} {
		f := &gateFake{t: t, most: 1}
		db, c := f.open(Config{Name: "orders", MaxOpen: 1, AcquireTimeout: timeout, LeakThreshold: -1})
		holder := take(t, db, 1)[0]
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		began := time.Now()
		err := db.PingContext(ctx)
		cancel()
		assert.Equal(t, want, time.Since(began))
		failed := (*AcquireError)(nil)
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, []any{"orders", 1}, []any{failed.Pool, len(failed.Holders)})
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "pool_test.go", "the line that took it")
		giveBack(t, holder)
		f.end(db, c)
	}
}

// closesTheUnused: db.SetConnMaxIdleTime closes what was idle for so long, but for
// Config.MinIdle.
func closesTheUnused(t *testing.T) {
	for _, least := range []int{0, 1} {
		f := &gateFake{t: t, most: 3}
		db, c := f.open(Config{MaxOpen: 3, MinIdle: least})
		db.SetConnMaxIdleTime(10 * time.Minute)
		giveBack(t, take(t, db, 3)...)
		elapse(9 * time.Minute)
		synctest.Wait()
		assert.Equal(t, 3, c.Stats().Idle)
		elapse(12 * time.Minute)
		synctest.Wait()
		assert.Equal(t, least, c.Stats().Open)
		assert.Equal(t, uint64(3-least), c.Stats().Closed.Surplus)
		f.end(db, c)
	}
}

// endsTheOld: a connection is not used when it is older than Config.MaxLifetime. It ends up to
// 2.5 % earlier, and not while it is in use; without it there is no end.
func endsTheOld(t *testing.T) {
	f := &lifetimeFake{}
	db, c := openPool(t, f, Config{MaxLifetime: 30 * time.Minute, MaxOpen: 2})
	held := take(t, db, 2)
	giveBack(t, held[0])
	elapse(29*time.Minute + 14*time.Second)
	synctest.Wait()
	assert.Equal(t, 2, c.Stats().Open, "%+v", c.Stats().Closed)
	elapse(47 * time.Second)
	synctest.Wait()
	assert.Equal(t, []int{1, 1}, []int{c.Stats().Open, c.Stats().InUse}, "the one in use is not cut")
	giveBack(t, held[1])
	assert.Zero(t, c.Stats().Open)
	assert.Equal(t, uint64(2), c.Stats().Closed.Expired)

	f = &lifetimeFake{}
	db, c = openPool(t, f, Config{})
	useOnce(t, db)
	elapse(365 * 24 * time.Hour)
	useOnce(t, db)
	assert.Equal(t, uint64(1), c.Stats().Dials)
}

// endsTheOldUnderLoad: so it is where callers always wait. db.SetConnMaxLifetime counts anew
// with each handover there.
func endsTheOldUnderLoad(t *testing.T) {
	dials := func(cfg Config, theirs time.Duration) uint64 {
		cfg.MaxOpen, cfg.LeakThreshold = 1, -1
		f := &lifetimeFake{exec: func(context.Context) error { elapse(time.Second); return nil }}
		db, c := openPool(t, f, cfg)
		db.SetConnMaxLifetime(theirs)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				for range 200 {
					exec(t, t.Context(), db, "DO 1")
				}
			})
		}
		all.Wait()
		return c.Stats().Dials
	}
	assert.InDelta(t, 10, dials(Config{MaxLifetime: time.Minute}, 0), 1, "ten minutes")
	assert.Equal(t, uint64(1), dials(Config{}, time.Minute))
	f := &lifetimeFake{}
	db, c := openPool(t, f, Config{})
	db.SetConnMaxLifetime(time.Minute)
	useOnce(t, db)
	elapse(3 * time.Minute)
	synctest.Wait()
	assert.Equal(t, []uint64{0, 1}, []uint64{uint64(c.Stats().Open), c.Stats().Closed.Surplus}, "where nobody waits, it ends")
}

// endsBeforeTheNetworkDoes: a connection is closed before Config.NetworkIdleLimit, and with
// Config.MinIdle another takes its place.
func endsBeforeTheNetworkDoes(t *testing.T) {
	f := &lifetimeFake{idleLimit: 10 * time.Minute} // without a word of it
	db, c := openPool(t, f, Config{NetworkIdleLimit: 10 * time.Minute, MaxOpen: 2, MinIdle: 1})
	for range 50 {
		elapse(9*time.Minute + 35*time.Second)
		synctest.Wait()
		assert.Equal(t, 1, c.Stats().Idle)
		useOnce(t, db)
	}
	assert.Zero(t, c.Stats().Closed.Dead())
	assert.Greater(t, c.Stats().Closed.IdleLimit, uint64(30))
}

// endsBeforeTheServerDoes: a connection is asked for its server's idle limit, and closed
// before; nothing has to be set.
func endsBeforeTheServerDoes(t *testing.T) {
	f := &lifetimeFake{idleLimit: time.Minute, announced: []any{lifetimeSeconds(60)}}
	db, c := openPool(t, f, Config{Dialect: DialectMySQL}) // the fake is no driver that is known
	for range 50 {
		useOnce(t, db)
		elapse(59 * time.Second)
	}
	assert.Equal(t, time.Minute, c.Stats().IdleLimit)
	assert.Zero(t, c.Stats().Closed.Dead())
}

// reportsTheUnused: a connection that is checked out and not used for Config.LeakThreshold is
// reported as a leak, and one in a long statement is not.
func reportsTheUnused(t *testing.T) {
	p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": 10 * time.Second}}, Config{LeakThreshold: 2 * time.Second})
	_, err := p.ExecContext(t.Context(), "UPDATE t SET a = 1")
	require.NoError(t, err)
	assert.Empty(t, p.take(), "a long statement")
	conn := p.lease(t)
	leakPause(2 * time.Second)
	assert.NotEqual(t, ClassBusy, p.one(t).Class)
	require.NoError(t, conn.Close())
	assert.Equal(t, uint64(1), p.c.Stats().Leaks)
	assert.Equal(t, 30*time.Second, DefaultLeakThreshold)
}

// goesOnAfterARestart: a call of a *sql.DB that finds its connection dead is made again, at
// last on a new one, where the driver says that it has not run. No caller sees an error.
func goesOnAfterARestart(t *testing.T) {
	var restarted atomic.Int32
	dead := deadBelow(&restarted)
	f := &gateFake{t: t, most: 5, script: func(ctx context.Context, c *gateFakeConn, call string) error {
		if err := dead(ctx, c, call); err != nil || call != "exec" {
			return err
		}
		elapse(time.Second)
		return nil
	}}
	db, c := f.open(Config{MaxOpen: 5})
	giveBack(t, take(t, db, 5)...)
	elapse(time.Second)
	restarted.Store(5)
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			for range 4 {
				useOnce(t, db)
			}
		})
	}
	all.Wait()
	closed := c.Stats().Closed
	assert.Equal(t, uint64(5), closed.Dead()+closed.Suspect, "%+v", closed)
	f.end(db, c)
}

// findsTheDeadByTheDriver: the driver looks at each connection before it is handed out, and a
// dead one is replaced without a word.
func findsTheDeadByTheDriver(t *testing.T) {
	var dead atomic.Bool
	f := &gateFake{t: t, script: func(_ context.Context, c *gateFakeConn, call string) error {
		if call == "reset" && c.number == 0 && dead.Load() {
			return driver.ErrBadConn
		}
		return nil
	}}
	db, c := f.open(Config{MaxOpen: 1})
	useOnce(t, db)
	dead.Store(true)
	conn := take(t, db, 1)[0]
	assert.Equal(t, 1, numberOf(t, conn))
	giveBack(t, conn)
	assert.Equal(t, uint64(1), c.Stats().Closed.ResetFailed)
	f.end(db, c)
}

// boundsTheCheck: the caller's context ends the driver's check of a connection.
func boundsTheCheck(t *testing.T) {
	f := &gateFake{t: t, script: func(ctx context.Context, _ *gateFakeConn, call string) error {
		if call == "reset" {
			<-ctx.Done()
		}
		return ctx.Err()
	}}
	db, c := f.open(Config{MaxOpen: 1})
	useOnce(t, db)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	began := time.Now()
	_, err := db.ExecContext(ctx, "DO 1")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Equal(t, 5*time.Second, time.Since(began))
	f.end(db, c)
}

// opensWithoutAServer: to open a database dials nothing; a ping at the start tells.
func opensWithoutAServer(t *testing.T) {
	f := &telemetryFake{on: failing("connect", syscall.ECONNREFUSED)}
	db, c := openPool(t, f, Config{})
	assert.Zero(t, c.Stats().Dials)
	require.ErrorIs(t, db.PingContext(t.Context()), syscall.ECONNREFUSED)

	db, c = openPool(t, &telemetryFake{on: failing("connect", syscall.ECONNREFUSED)}, Config{MinIdle: 1})
	elapse(time.Hour)
	synctest.Wait()
	assert.NotZero(t, c.Stats().DialErrors, "Config.MinIdle dials")
	assert.InDelta(t, 160, c.Stats().DialErrors, 80, "later and later, up to half a minute")
	require.NoError(t, db.Close())
}

// failsAtTheStart: Connector.Ready fails at once where another try would be in vain.
func failsAtTheStart(t *testing.T) {
	refused := &mysql.MySQLError{Number: 1045, Message: "Access denied"}
	db, c := openPool(t, &telemetryFake{on: failing("connect", refused)}, Config{MinIdle: 1})
	began := time.Now()
	require.ErrorIs(t, c.Ready(t.Context()), refused)
	assert.LessOrEqual(t, time.Since(began), 10*time.Millisecond, "it may have to look again, where that connection is dialed already")
	require.NoError(t, db.Close())
}

// boundsTheDial: the caller's context ends a dial.
func boundsTheDial(t *testing.T) {
	f := &lifetimeFake{connect: func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() }}
	db, _ := openPool(t, f, Config{MaxOpen: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	began := time.Now()
	require.ErrorIs(t, db.PingContext(ctx), context.DeadlineExceeded)
	assert.Equal(t, 5*time.Second, time.Since(began))
}

// namesThePool: Config.Name is in figures, metrics, spans and errors.
func namesThePool(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{Name: "orders"})
	useOnce(t, p.db)
	assert.Equal(t, "orders", p.c.Stats().Name)
	assert.Contains(t, p.values(t, "db.client.operation.duration", keyPool), "orders")
	for _, s := range p.takeAll() {
		assert.Equal(t, "orders", spanAttributes(s)[string(keyPool)])
	}
	a, _ := openDetached(t, &telemetryFake{}, Config{})
	b, c := openDetached(t, &telemetryFake{}, Config{})
	assert.NotEmpty(t, c.Stats().Name, "made up")
	require.NoError(t, errors.Join(a.Close(), b.Close()))
}

// measures: metrics are there, and Connector.Stats and Connector.DBStats have the figures.
func measures(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 3})
	held := take(t, p.db, 2)
	giveBack(t, held[1])
	assert.NotNil(t, p.metric(t, "db.client.connection.count"))
	assert.Equal(t, uint64(2), p.total(t, "db.client.connection.wait_time"))
	assert.Equal(t, uint64(1), p.total(t, "db.client.connection.use_time"))
	s, d := p.c.Stats(), p.c.DBStats()
	assert.Equal(t, []int{3, 1, 1}, []int{s.Limit, s.InUse, s.Idle})
	assert.Equal(t, []int{3, 1, 1}, []int{d.MaxOpenConnections, d.InUse, d.Idle})
	giveBack(t, held[0])
}

// preparing is a driver's connector under which each new connection is set up.
type preparing struct {
	driver.Connector
	statement string
}

func (p preparing) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.(driver.ExecerContext).ExecContext(ctx, p.statement, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// setsUpNewOnes: a connector below, of the application's own, sets each new connection up.
func setsUpNewOnes(t *testing.T) {
	var got []string
	f := &telemetryFake{on: func(_ context.Context, call, query string) error {
		if call == "exec" {
			got = append(got, query)
		}
		return nil
	}}
	db, _ := openPool(t, preparing{f, "SET a = 1"}, Config{MaxOpen: 2})
	giveBack(t, take(t, db, 2)...)
	giveBack(t, take(t, db, 2)...)
	assert.Equal(t, []string{"SET a = 1", "SET a = 1"}, got, "once for each connection")
}
