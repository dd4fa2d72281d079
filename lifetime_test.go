package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// The pure functions.

func TestTheMarginIsATenthWithinItsBounds(t *testing.T) {
	for _, c := range []struct{ limit, want time.Duration }{
		{0, 0},
		{time.Millisecond, 500 * time.Microsecond},
		{900 * time.Millisecond, 450 * time.Millisecond}, // half: half a second would be more
		{time.Second, 500 * time.Millisecond},
		{3 * time.Second, 500 * time.Millisecond}, // a tenth would be less than half a second
		{5 * time.Second, 500 * time.Millisecond},
		{6 * time.Second, 600 * time.Millisecond},
		{time.Minute, 6 * time.Second},
		{5 * time.Minute, 30 * time.Second},
		{8 * time.Hour, 30 * time.Second}, // a tenth would be more than half a minute
		{math.MaxInt64, 30 * time.Second},
	} {
		assert.Equal(t, c.want, margin(c.limit), "of %v", c.limit)
	}
}

func TestTheSmallerLimitTakesZeroForNone(t *testing.T) {
	for _, c := range []struct{ a, b, want time.Duration }{
		{0, 0, 0}, {0, 5, 5}, {5, 0, 5}, {3, 5, 3}, {5, 3, 3}, {4, 4, 4},
	} {
		assert.Equal(t, c.want, minLimit(c.a, c.b), "of %v and %v", c.a, c.b)
	}
}

const lifetimeBirth = clock.Instant(time.Hour)

func TestALifetimeIsChosenFromTheLimits(t *testing.T) {
	for name, c := range map[string]struct {
		found                drivers.Limits
		network, most        time.Duration
		limit, idle, longest time.Duration
	}{
		"nothing known":         {},
		"the server's":          {found: drivers.Limits{Idle: time.Minute}, limit: time.Minute, idle: 54 * time.Second, longest: 54 * time.Second},
		"the network's":         {network: 10 * time.Second, limit: 10 * time.Second, idle: 9 * time.Second, longest: 9 * time.Second},
		"the network is less":   {drivers.Limits{Idle: time.Hour}, 10 * time.Second, 0, 10 * time.Second, 9 * time.Second, 9 * time.Second},
		"the server is less":    {drivers.Limits{Idle: 10 * time.Second}, time.Hour, 0, 10 * time.Second, 9 * time.Second, 9 * time.Second},
		"a maximum alone":       {most: time.Hour, longest: time.Hour},
		"a maximum that counts": {drivers.Limits{Idle: time.Hour}, 0, time.Minute, time.Hour, time.Hour - 30*time.Second, time.Minute},
		"a maximum too far":     {drivers.Limits{Idle: time.Minute}, 0, time.Hour, time.Minute, 54 * time.Second, 54 * time.Second},
		"a transaction's idle limit bounds no session": {found: drivers.Limits{IdleTx: time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			got := newLifetime(lifetimeBirth, c.found, c.network, c.most, 0)
			want := lifetime{born: lifetimeBirth, limits: drivers.Limits{Idle: c.limit, IdleTx: c.found.IdleTx}, idle: c.idle, whole: c.longest}
			assert.Equal(t, want, got)
		})
	}
}

func TestJitterOnlySubtracts(t *testing.T) {
	some := []time.Duration{0, time.Millisecond, 900 * time.Millisecond, time.Second, time.Minute, 8 * time.Hour, math.MaxInt64}
	for _, idle := range some {
		for _, network := range some {
			for _, most := range some {
				bound := newLifetime(lifetimeBirth, drivers.Limits{Idle: idle}, network, most, 0)
				before := bound
				for _, jitter := range []float64{0.001, 0.5, 0.999999, 1} {
					got := newLifetime(lifetimeBirth, drivers.Limits{Idle: idle}, network, most, jitter)
					at := fmt.Sprintf("idle limit %v, network %v, most %v, jitter %v", idle, network, most, jitter)
					assert.LessOrEqual(t, got.whole, before.whole, at)
					assert.GreaterOrEqual(t, float64(got.whole), float64(bound.whole)*0.9749, at)
					assert.Equal(t, bound.whole == 0, got.whole == 0, "no bound stays none: %s", at)
					assert.Equal(t, bound.idle, got.idle, at)
					assert.Equal(t, bound.limits, got.limits, at)
					before = got
				}
			}
		}
	}
	const minute = float64(time.Minute)
	assert.InDelta(t, 0.975*minute, newLifetime(lifetimeBirth, drivers.Limits{}, 0, time.Minute, 1).whole, 2, "it spreads over 2.5 %")
}

func TestJitterIsAFraction(t *testing.T) {
	seen := map[float64]bool{}
	for range 1000 {
		j := jitter()
		require.GreaterOrEqual(t, j, 0.0)
		require.LessOrEqual(t, j, 1.0)
		seen[j] = true
	}
	assert.Greater(t, len(seen), 900, "sessions that were born together do not end together")
}

func TestExpiryIsTheEarlierOfAgeAndIdleTime(t *testing.T) {
	after := func(d time.Duration) clock.Instant { return lifetimeBirth.Add(d) }
	for name, c := range map[string]struct {
		life lifetime
		used clock.Instant
		want clock.Instant
	}{
		"never":                 {lifetime{born: lifetimeBirth}, after(time.Hour), 0},
		"by age":                {lifetime{born: lifetimeBirth, whole: time.Minute}, after(50 * time.Second), after(time.Minute)},
		"by idle time":          {lifetime{born: lifetimeBirth, idle: time.Minute}, after(time.Hour), after(time.Hour + time.Minute)},
		"by age, idle is later": {lifetime{born: lifetimeBirth, whole: time.Minute, idle: time.Minute}, after(time.Second), after(time.Minute)},
		"by idle time, age is later": {
			lifetime{born: lifetimeBirth, whole: time.Hour, idle: time.Minute}, after(time.Second), after(61 * time.Second),
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, c.life.bounds().Expiry(c.used))
			if c.want.IsZero() {
				assert.False(t, c.life.bounds().Expired(c.used, after(100*365*24*time.Hour)))
				return
			}
			assert.False(t, c.life.bounds().Expired(c.used, c.want.Add(-1)))
			assert.True(t, c.life.bounds().Expired(c.used, c.want), "at its expiry a session is not handed out any more")
			assert.True(t, c.life.bounds().Expired(c.used, c.want.Add(time.Hour)))
		})
	}
}

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

func lifetimeOpen(t *testing.T, inner driver.Connector, cfg Config) (*sql.DB, *Connector) {
	t.Helper()
	db, err := OpenDB(inner, cfg)
	require.NoError(t, err)
	c, ok := ConnectorOf(db)
	require.True(t, ok)
	t.Cleanup(func() {
		assert.NoError(t, db.Close())
		assert.Zero(t, c.Stats().Open)
	})
	return db, c
}

// allClosed waits for a session that has just expired, and is being closed.
func allClosed(t *testing.T, c *Connector) {
	t.Helper()
	assert.Eventually(t, func() bool { return c.Stats().Open == 0 }, 10*time.Second, time.Millisecond)
}

// lifetimeElapse lets time pass.
func lifetimeElapse(d time.Duration) { <-time.After(d) }

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
		db, c := lifetimeOpen(t, lifetimeDriver(t, i.server.DSN()), cfg)
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
					lifetimeElapse(pause)
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
		assert.Zero(t, s.Closed.Bad, "sessions were bad when they were used")
		opened += s.Dials
		expired += s.Closed.Expired
		closed += s.Closed.Expired + s.Closed.Dropped + s.Closed.Shutdown
	}
	n := i.server.Await(t, func(n mysqlscript.Counts) bool { return n.Open == 0 })
	assert.Zero(t, n.IdleEnded, "the server ended sessions that should have been closed before")
	assert.Equal(t, n.Opened, n.Quit, "sessions ended otherwise than by the client")
	assert.Equal(t, uint64(n.Opened), opened)
	assert.Equal(t, opened, closed)
	const often = 9 // pauses in which a session surely expires
	assert.GreaterOrEqual(t, expired, uint64(2*often))
}

// A server whose limit is below a second cannot announce it, since it counts
// whole seconds: there, what ends the sessions stands for something on the way.
func TestNoSessionIsUsedThatTheServerEndsForBeingIdle(t *testing.T) {
	cases := map[string]*lifetimeIdlers{}
	for name, ending := range lifetimeEndings {
		const below = 900 * time.Millisecond
		cases["network limit, "+name] = newLifetimeIdlers(t, below,
			mysqlscript.Script{IdleEnding: ending}, Config{NetworkIdleLimit: below})
		cases["discovered, "+name] = newLifetimeIdlers(t, time.Second,
			mysqlscript.Script{IdleEnding: ending, WaitTimeout: mysqlscript.Number(1)}, Config{})
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
			db, c := lifetimeOpen(t, lifetimeDriver(t, server.DSN()), Config{MaxOpen: 1, NetworkIdleLimit: limit})
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

// In virtual time.

// lifetimeFake is a driver's connector and its server. The server ends a
// session that has seen no traffic for its idle limit, and notes who uses a
// session that it has ended. It is answered as its fields say, which do not
// change while it is used.
type lifetimeFake struct {
	idleLimit time.Duration // what it does; 0: nothing
	announced []any         // what it says, in order of dialling, the last for all that follow: a row, an error, or a function
	connect   func(ctx context.Context, dial int) error
	exec      func(ctx context.Context) error
	dress     func(*lifetimeFakeConn) driver.Conn // gives a connection further interfaces; nil: none

	mu    sync.Mutex
	dials int                 // guarded by mu
	conns []*lifetimeFakeConn // guarded by mu: all that were dialled
}

// lifetimeFakeConn is one session.
type lifetimeFakeConn struct {
	f        *lifetimeFake
	number   int // 1 is the first
	born     time.Time
	announce any

	mu       sync.Mutex
	used     time.Time     // guarded by mu: the last traffic
	oldest   time.Duration // guarded by mu: the age at which it was last used
	uses     int           // guarded by mu
	late     int           // guarded by mu: uses after the server had ended it
	broken   bool          // guarded by mu: a discovery cost it
	closings []time.Time   // guarded by mu
}

var errLifetimeGone = errors.New("the server has gone away")

func (f *lifetimeFake) Driver() driver.Driver            { return f }
func (f *lifetimeFake) Open(string) (driver.Conn, error) { return f.Connect(context.Background()) }

func (f *lifetimeFake) Connect(ctx context.Context) (driver.Conn, error) {
	f.mu.Lock()
	f.dials++
	dial := f.dials
	f.mu.Unlock()
	if f.connect != nil {
		if err := f.connect(ctx, dial); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &lifetimeFakeConn{f: f, number: len(f.conns) + 1, born: time.Now(), used: time.Now()}
	if len(f.announced) > 0 {
		c.announce = f.announced[min(len(f.conns), len(f.announced)-1)]
	}
	f.conns = append(f.conns, c)
	if f.dress != nil {
		return f.dress(c), nil
	}
	return c, nil
}

func (f *lifetimeFake) sessions() []*lifetimeFakeConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.conns)
}

// traffic is a packet to the server.
func (c *lifetimeFakeConn) traffic() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.broken {
		return driver.ErrBadConn
	}
	if len(c.closings) > 0 || (c.f.idleLimit > 0 && now.Sub(c.used) >= c.f.idleLimit) {
		c.late++
		return errLifetimeGone
	}
	c.used, c.oldest = now, now.Sub(c.born)
	c.uses++
	return nil
}

// closedAfter is the age at which the session was closed, once.
func (c *lifetimeFakeConn) closedAfter(t *testing.T) time.Duration {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Len(t, c.closings, 1, "session %d is to be closed, and once", c.number)
	return c.closings[0].Sub(c.born)
}

func (c *lifetimeFakeConn) isOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.closings) == 0
}

func (c *lifetimeFakeConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closings = append(c.closings, time.Now())
	return nil
}

func (c *lifetimeFakeConn) Prepare(string) (driver.Stmt, error) {
	return nil, errors.New("not prepared for that")
}
func (c *lifetimeFakeConn) Begin() (driver.Tx, error) { return nil, errors.New("no transactions") }

func (c *lifetimeFakeConn) ExecContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Result, error) {
	if err := c.traffic(); err != nil {
		return nil, err
	}
	if c.f.exec != nil {
		if err := c.f.exec(ctx); err != nil {
			return nil, err
		}
	}
	return driver.ResultNoRows, nil
}

// QueryContext answers a discovery; there are no other queries.
func (c *lifetimeFakeConn) QueryContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Rows, error) {
	if err := c.traffic(); err != nil {
		return nil, err
	}
	switch a := c.announce.(type) {
	case []driver.Value:
		return &lifetimeFakeRows{row: a}, nil
	case error:
		return nil, a
	case func(context.Context, *lifetimeFakeConn) error:
		return &lifetimeFakeRows{}, a(ctx, c)
	}
	return nil, errors.New("the fake announces nothing")
}

// lifetimeFakeRows is one row; nil: none, of one column.
type lifetimeFakeRows struct {
	row  []driver.Value
	done bool
}

func (r *lifetimeFakeRows) Close() error { return nil }

func (r *lifetimeFakeRows) Columns() []string { return make([]string, max(len(r.row), 1)) }

func (r *lifetimeFakeRows) Next(to []driver.Value) error {
	if r.done || r.row == nil {
		return io.EOF
	}
	r.done = true
	copy(to, r.row)
	return nil
}

// lifetimeSeconds is a server's announcement of wait_timeout.
func lifetimeSeconds(n int64) []driver.Value { return []driver.Value{n} }

// lifetimeUse uses a pool once.
func lifetimeUse(t *testing.T, db *sql.DB) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), "DO 1")
	require.NoError(t, err)
}

// wantClosed checks that a session was closed within a second of its expiry,
// which is the bound or up to 2.5 % earlier.
func (c *lifetimeFakeConn) wantClosed(t *testing.T, bound time.Duration) {
	t.Helper()
	age := c.closedAfter(t)
	assert.GreaterOrEqual(t, age, bound*975/1000-time.Microsecond, "session %d", c.number)
	assert.LessOrEqual(t, age, bound+time.Second, "session %d", c.number)
}

func TestAnIdleSessionIsClosedAtItsExpiryWithoutAQuery(t *testing.T) {
	for name, c := range map[string]struct {
		announced int64 // seconds; 0: nothing is asked
		cfg       Config
		limit     time.Duration
		bound     time.Duration
	}{
		"discovered":             {60, Config{}, time.Minute, 54 * time.Second},
		"discovered, hours":      {28800, Config{}, 8 * time.Hour, 8*time.Hour - 30*time.Second},
		"network":                {0, Config{NetworkIdleLimit: 10 * time.Second}, 10 * time.Second, 9 * time.Second},
		"network below a second": {0, Config{NetworkIdleLimit: 40 * time.Millisecond}, 40 * time.Millisecond, 20 * time.Millisecond},
		"network before server":  {600, Config{NetworkIdleLimit: 100 * time.Second}, 100 * time.Second, 90 * time.Second},
		"server before network":  {100, Config{NetworkIdleLimit: 600 * time.Second}, 100 * time.Second, 90 * time.Second},
		"maximum":                {0, Config{MaxLifetime: time.Hour}, 0, time.Hour},
		"maximum before server":  {28800, Config{MaxLifetime: time.Hour}, 8 * time.Hour, time.Hour},
		"server before maximum":  {60, Config{MaxLifetime: time.Hour}, time.Minute, 54 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.cfg.Dialect = DialectNone
				f := &lifetimeFake{idleLimit: c.limit}
				if c.announced > 0 {
					c.cfg.Dialect = DialectMySQL
					f.announced = []any{lifetimeSeconds(c.announced)}
				}
				db, pool := lifetimeOpen(t, f, c.cfg)
				lifetimeUse(t, db)
				s := pool.Stats()
				assert.Equal(t, c.limit, s.IdleLimit)
				assert.Equal(t, c.bound, s.Lifetime)

				lifetimeElapse(c.bound * 974 / 1000)
				synctest.Wait()
				assert.True(t, f.sessions()[0].isOpen(), "closed long before its expiry")
				assert.Equal(t, 1, pool.Stats().Idle)
				lifetimeElapse(c.bound*26/1000 + time.Second)
				synctest.Wait()
				f.sessions()[0].wantClosed(t, c.bound)
				s = pool.Stats()
				assert.Equal(t, 0, s.Open)
				assert.Equal(t, ClosedStats{Expired: 1}, s.Closed)

				lifetimeUse(t, db)
				assert.Len(t, f.sessions(), 2)
			})
		})
	}
}

func TestWithoutLimitsASessionLivesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(0)}}
		db, c := lifetimeOpen(t, f, Config{Dialect: DialectMySQL})
		for range 3 {
			lifetimeUse(t, db)
			lifetimeElapse(365 * 24 * time.Hour)
		}
		lifetimeUse(t, db)
		s := c.Stats()
		assert.Equal(t, uint64(1), s.Dials)
		assert.Zero(t, s.IdleLimit)
		assert.Zero(t, s.Lifetime)
		assert.Zero(t, s.DiscoveryFailures)
	})
}

func TestEverySessionIsClosedAtItsOwnExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The third session's limit was lowered: it ends before the others,
		// for whose expiry the timer is set.
		f := &lifetimeFake{announced: []any{lifetimeSeconds(600), lifetimeSeconds(600), lifetimeSeconds(60), lifetimeSeconds(300)}}
		db, c := lifetimeOpen(t, f, Config{Dialect: DialectMySQL, MaxOpen: 4, LeakThreshold: -1})
		var conns []*sql.Conn
		for range 4 {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			conns = append(conns, conn)
			lifetimeElapse(10 * time.Second)
		}
		for _, conn := range conns {
			require.NoError(t, conn.Close())
		}
		for _, left := range []int{4, 3, 2, 0} {
			assert.Equal(t, left, c.Stats().Open)
			lifetimeElapse([]time.Duration{0: 10 * time.Minute, 2: 5 * time.Minute, 3: 4 * time.Minute, 4: time.Minute}[left])
			synctest.Wait()
		}
		for i, bound := range []time.Duration{570 * time.Second, 570 * time.Second, 54 * time.Second, 270 * time.Second} {
			f.sessions()[i].wantClosed(t, bound)
		}
		assert.Equal(t, ClosedStats{Expired: 4}, c.Stats().Closed)
	})
}

func TestSparesAreReplacedAtTheirExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{idleLimit: time.Minute, announced: []any{lifetimeSeconds(60)}}
		db, c := lifetimeOpen(t, f, Config{Dialect: DialectMySQL, MaxOpen: 5, MinIdle: 3})
		lifetimeUse(t, db)
		for range 60 {
			lifetimeElapse(time.Minute)
			synctest.Wait()
			s := c.Stats()
			assert.Equal(t, 3, s.Idle, "sessions are ready, though none was asked for")
			assert.Equal(t, 3, s.Open)
		}
		lifetimeUse(t, db)
		require.NoError(t, db.Close())
		synctest.Wait()
		all := f.sessions()
		assert.Greater(t, len(all), 3*60)
		for _, s := range all {
			assert.LessOrEqual(t, s.closedAfter(t), 55*time.Second)
			assert.Zero(t, s.late)
		}
		assert.Zero(t, c.Stats().Open)
	})
}

func TestALeaseIsNotCutAtItsSessionsExpiryAndEndsAtRelease(t *testing.T) {
	hold := func(t *testing.T, waiters int) {
		f := &lifetimeFake{idleLimit: time.Minute, announced: []any{lifetimeSeconds(60)}}
		db, c := lifetimeOpen(t, f, Config{Dialect: DialectMySQL, MaxOpen: 1, LeakThreshold: -1})
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		for range 20 {
			lifetimeElapse(30 * time.Second)
			_, err := conn.ExecContext(t.Context(), "DO 1")
			require.NoError(t, err)
		}
		var all sync.WaitGroup
		for range waiters {
			all.Go(func() {
				_, err := db.ExecContext(t.Context(), "DO 1")
				assert.NoError(t, err)
			})
			synctest.Wait()
		}
		s := c.Stats()
		assert.Equal(t, waiters, s.Waiting)
		assert.Equal(t, uint64(1), s.Dials)
		assert.Equal(t, ClosedStats{}, s.Closed)
		assert.True(t, f.sessions()[0].isOpen(), "the lease was cut")

		require.NoError(t, conn.Close())
		all.Wait()
		synctest.Wait()
		assert.Equal(t, 10*time.Minute, f.sessions()[0].closedAfter(t), "closed at release")
		s = c.Stats()
		assert.Equal(t, ClosedStats{Expired: 1}, s.Closed)
		assert.Equal(t, min(waiters, 1), s.Open)
		assert.Equal(t, uint64(max(waiters-1, 0)), s.Handovers, "the expired session was not handed over")
		assert.Len(t, f.sessions(), 1+min(waiters, 1))
		lifetimeUse(t, db)
	}
	for name, waiters := range map[string]int{"nobody waits": 0, "one waits": 1, "several wait": 3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hold(t, waiters) })
		})
	}
}

func TestASessionInConstantUseEndsAtItsMaximumLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = time.Minute
		f := &lifetimeFake{}
		db, c := lifetimeOpen(t, f, Config{MaxLifetime: most, MaxOpen: 1, LeakThreshold: time.Second})
		for range 3600 {
			lifetimeUse(t, db)
			lifetimeElapse(time.Second)
		}
		require.NoError(t, db.Close())
		all := f.sessions()
		assert.InDelta(t, 60, len(all), 2)
		for _, s := range all {
			assert.Less(t, s.oldest, most)
			assert.Zero(t, s.late)
		}
		for _, s := range all[:len(all)-1] {
			s.wantClosed(t, most)
		}
		assert.Equal(t, uint64(len(all)-1), c.Stats().Closed.Expired)
	})
}

func TestNoBadConnectionReachesASaturatedPoolsCallers(t *testing.T) {
	for name, cfg := range map[string]Config{
		"maximum lifetime":   {MaxLifetime: 100 * time.Millisecond, LeakThreshold: -1},
		"network idle limit": {NetworkIdleLimit: 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{
					idleLimit: 200 * time.Millisecond,
					exec:      func(context.Context) error { lifetimeElapse(7 * time.Millisecond); return nil },
					connect:   func(context.Context, int) error { lifetimeElapse(3 * time.Millisecond); return nil },
				}
				cfg.MaxOpen = 10
				db, c := lifetimeOpen(t, f, cfg)
				var all sync.WaitGroup
				for range 60 {
					all.Go(func() {
						for range 40 {
							_, err := db.ExecContext(t.Context(), "DO 1")
							assert.NoError(t, err)
						}
					})
				}
				all.Wait()
				require.NoError(t, db.Close())
				s := c.Stats()
				assert.Equal(t, uint64(2400), s.Acquires)
				assert.Greater(t, s.Closed.Expired, uint64(100), "the pool was not full of expired sessions")
				assert.Zero(t, s.Closed.Bad)
				for _, s := range f.sessions() {
					assert.Zero(t, s.late)
					assert.Less(t, s.oldest, 100*time.Millisecond, "session %d was used past its expiry", s.number)
				}
			})
		})
	}
}

// lifetimeStale opens a pool whose timer never closes an expired session, as
// if it was late: the checks at each acquire are all there is. n sessions are
// left idle past their expiry.
func lifetimeStale(t *testing.T, n int, cfg Config) (*lifetimeFake, *sql.DB, *Connector) {
	t.Helper()
	f := &lifetimeFake{idleLimit: time.Minute, announced: []any{lifetimeSeconds(60)}}
	cfg.Dialect = DialectMySQL
	db, c := lifetimeOpen(t, f, cfg)
	var conns []*sql.Conn
	for range n {
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	synctest.Wait()
	for _, conn := range conns {
		require.NoError(t, conn.Close())
	}
	c.wakeTimer.stop()
	lifetimeElapse(54 * time.Second)
	return f, db, c
}

func TestASessionThatWasIdleTooLongIsRefusedAtCheckout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, db, c := lifetimeStale(t, 1, Config{MaxOpen: 1})
		assert.Equal(t, 1, c.Stats().Idle)
		lifetimeUse(t, db)
		assert.Equal(t, 1, f.sessions()[0].uses, "the discovery alone")
		f.sessions()[0].closedAfter(t)
		assert.Equal(t, ClosedStats{Expired: 1}, c.Stats().Closed)
		assert.Equal(t, uint64(2), c.Stats().Dials)
	})
}

func TestManyStaleSessionsFailNoCaller(t *testing.T) {
	for _, callers := range []int{1, 10, 40} {
		synctest.Test(t, func(t *testing.T) {
			f, db, c := lifetimeStale(t, 10, Config{MaxOpen: 10})
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					_, err := db.ExecContext(t.Context(), "DO 1")
					assert.NoError(t, err)
				})
			}
			all.Wait()
			for _, s := range f.sessions()[:10] {
				assert.Equal(t, 1, s.uses, "session %d was used past its expiry", s.number)
			}
			assert.Zero(t, c.Stats().Closed.Bad)
			assert.LessOrEqual(t, c.Stats().Open, 10)
		})
	}
}

func TestAStaleSessionThatIsStolenIsReplacedInItsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, c := lifetimeStale(t, 1, Config{MaxOpen: 1})
		conn, err := c.Connect(t.Context()) // past database/sql's free list
		require.NoError(t, err)
		s := c.Stats()
		assert.Equal(t, uint64(2), s.Dials)
		assert.Equal(t, ClosedStats{Expired: 1}, s.Closed)
		assert.Equal(t, 1, s.Open)
		assert.Equal(t, 1, f.sessions()[0].uses)
		f.sessions()[0].closedAfter(t)
		require.NoError(t, conn.Close())
	})
}

func TestAStaleSpareIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, db, c := lifetimeStale(t, 1, Config{MaxOpen: 3, MinIdle: 2})
		require.Equal(t, 2, c.Stats().Idle)
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				_, err := db.ExecContext(t.Context(), "DO 1")
				assert.NoError(t, err)
			})
		}
		all.Wait()
		synctest.Wait()
		for _, s := range f.sessions()[:3] {
			assert.Equal(t, 1, s.uses, "session %d was used past its expiry", s.number)
		}
		assert.Zero(t, c.Stats().Closed.Bad)
	})
}

func TestDiscoveryIsOfEachSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{
			lifetimeSeconds(28800), lifetimeSeconds(60), errors.New("not now"), lifetimeSeconds(0),
		}}
		db, c := lifetimeOpen(t, f, Config{Dialect: DialectMySQL, Logger: badInputLogger(&badInputLog{})})
		for _, want := range []time.Duration{
			8 * time.Hour,
			time.Minute,
			time.Minute, // what could not be found out is taken to be as it was
			0,
		} {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			defer func() { assert.NoError(t, conn.Close()) }()
			assert.Equal(t, want, c.Stats().IdleLimit)
		}
		assert.Equal(t, uint64(1), c.Stats().DiscoveryFailures)
		assert.Equal(t, uint64(4), c.Stats().Dials)
	})
}

func TestPostgreSQLsTimeoutsAreDiscovered(t *testing.T) {
	for _, dialect := range []Dialect{DialectPostgreSQL, DialectCockroachDB} {
		synctest.Test(t, func(t *testing.T) {
			f := &lifetimeFake{announced: []any{[]driver.Value{[]byte("5min"), "10s"}}}
			db, c := lifetimeOpen(t, f, Config{Dialect: dialect})
			lifetimeUse(t, db)
			assert.Equal(t, 5*time.Minute, c.Stats().IdleLimit)
			assert.Equal(t, 270*time.Second, c.Stats().Lifetime)
			assert.Equal(t, int64(10*time.Second), c.newest.idleTx.Load())
		})
	}
}
