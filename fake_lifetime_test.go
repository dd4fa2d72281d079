package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lifetimeFake is a driver's connector and its server. The server ends a
// session that has seen no traffic for its idle limit, and notes who uses a
// session that it has ended. It is answered as its fields say, which do not
// change while it is used.
type lifetimeFake struct {
	idleLimit time.Duration // what it does; 0: nothing
	announced []any         // what it says, in order of dialing, the last for all that follow: a row, an error, or a function
	connect   func(ctx context.Context, dial int) error
	exec      func(ctx context.Context) error
	dress     func(*lifetimeFakeConn) driver.Conn // gives a connection further interfaces; nil: none

	mu    sync.Mutex
	dials int                 // guarded by mu
	asked int                 // guarded by mu: how often for its limits
	conns []*lifetimeFakeConn // guarded by mu: all that were dialed
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

// questions is how often the server was asked for its limits.
func (f *lifetimeFake) questions() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// breaks has the session be of no use from now on.
func (c *lifetimeFakeConn) breaks() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = true
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

func (c *lifetimeFakeConn) isBroken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
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
	c.f.mu.Lock()
	c.f.asked++
	c.f.mu.Unlock()
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
func lifetimeSeconds(n int64) []driver.Value { return []driver.Value{"wait_timeout", n} }

// wantClosed checks that a session was closed within a second of its expiry,
// which is the bound or up to 2.5 % earlier.
func (c *lifetimeFakeConn) wantClosed(t *testing.T, bound time.Duration) {
	t.Helper()
	age := c.closedAfter(t)
	assert.GreaterOrEqual(t, age, bound*975/1000-time.Microsecond, "session %d", c.number)
	assert.LessOrEqual(t, age, bound+time.Second, "session %d", c.number)
}

// validFakeConn is a session whose driver tells whether it still works.
type validFakeConn struct{ *lifetimeFakeConn }

func (c validFakeConn) IsValid() bool { return !c.isBroken() }

// resetFakeConn is as a connection of pgx: it has a ResetSession, no IsValid.
type resetFakeConn struct{ *lifetimeFakeConn }

func (c resetFakeConn) ResetSession(context.Context) error {
	if c.isBroken() {
		return driver.ErrBadConn
	}
	return nil
}

// openLimited opens a pool of one session, so that room which a failure
// kept would be missing, and keeps its log.
func openLimited(t *testing.T, inner driver.Connector, cfg Config) (*sql.DB, *Connector, *keptLog) {
	t.Helper()
	l := &keptLog{}
	cfg.MaxOpen, cfg.Logger = 1, slog.New(l)
	cfg.QueryText = QueryTextRaw // else the text of an error is not shown
	db, c := openPool(t, inner, cfg)
	return db, c, l
}

// endLimited closes the pool and checks that nothing is left of it.
func endLimited(t *testing.T, db *sql.DB, c *Connector, f *lifetimeFake) {
	t.Helper()
	useOnce(t, db)
	require.NoError(t, db.Close())
	synctest.Wait()
	s := c.Stats()
	assert.Zero(t, s.Open)
	assert.Zero(t, s.Dialing)
	assert.Zero(t, s.Waiting)
	for _, session := range f.sessions() {
		session.closedAfter(t)
		assert.Zero(t, session.late)
	}
}
