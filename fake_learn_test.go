package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// droppingFake is a driver whose server says that its idle limit is 8 hours, and a network that
// drops a session which was idle for longer than its own limit, and tells nobody.
type droppingFake struct {
	limit   atomic.Int64                // the network's, of the sessions with an even number; 0: none
	odd     atomic.Int64                // that of the others
	restart atomic.Pointer[time.Time]   // what is older is dead
	atReset bool                        // the driver notices it when it resets a session
	fails   func(*droppingConn) error   // what a call on a dead session fails with
	after   func(context.Context) error // what a call meets with in the end; nil: nothing
	dials   atomic.Int64
	dead    atomic.Int64 // times that a dead session was noticed
}

type droppingConn struct {
	f    *droppingFake
	odd  bool
	born time.Time
	used time.Time // written by the holder, as the next
	gone bool
}

// sayEOF, sayBad: a driver notices by reading, and may say that the call can be made again.
func sayEOF(*droppingConn) error { return io.ErrUnexpectedEOF }
func sayBad(*droppingConn) error { return driver.ErrBadConn }

// drops sets the network's limit, of all sessions.
func (f *droppingFake) drops(limit time.Duration) {
	f.limit.Store(int64(limit))
	f.odd.Store(int64(limit))
}

// restarts ends every session of now.
func (f *droppingFake) restarts() {
	now := time.Now()
	f.restart.Store(&now)
}

func (f *droppingFake) Driver() driver.Driver            { return f }
func (f *droppingFake) Open(string) (driver.Conn, error) { return f.Connect(context.Background()) }

func (f *droppingFake) Connect(context.Context) (driver.Conn, error) {
	return &droppingConn{f: f, odd: f.dials.Add(1)%2 == 1, born: time.Now(), used: time.Now()}, nil
}

// traffic is a packet to the server.
func (c *droppingConn) traffic() error {
	limit := c.f.limit.Load()
	if c.odd {
		limit = c.f.odd.Load()
	}
	restart := c.f.restart.Load()
	if restart != nil && !c.born.After(*restart) || limit > 0 && time.Since(c.used) > time.Duration(limit) {
		c.gone = true
	}
	if c.gone {
		c.f.dead.Add(1)
		return c.f.fails(c)
	}
	c.used = time.Now()
	return nil
}

// ResetSession asks the server, where the driver does, as pgx does after a second.
func (c *droppingConn) ResetSession(context.Context) error {
	if !c.f.atReset || time.Since(c.used) <= time.Second {
		return nil
	}
	if c.traffic() != nil {
		return driver.ErrBadConn
	}
	return nil
}

func (c *droppingConn) IsValid() bool { return !c.gone }
func (c *droppingConn) Close() error  { return nil }

func (c *droppingConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (c *droppingConn) Begin() (driver.Tx, error)           { return plainFakeTx{}, c.traffic() }

func (c *droppingConn) ExecContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Result, error) {
	if err := c.traffic(); err != nil {
		return nil, err
	}
	if c.f.after != nil {
		return driver.ResultNoRows, c.f.after(ctx)
	}
	return driver.ResultNoRows, nil
}

func (c *droppingConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	if err := c.traffic(); err != nil {
		return nil, err
	}
	return &lifetimeFakeRows{row: []driver.Value{int64(28800)}}, nil
}

// learner is an application that uses such a driver at times of its own, and counts the calls
// that fail.
type learner struct {
	t      *testing.T
	f      *droppingFake
	db     *sql.DB
	c      *Connector
	log    *keptLog
	rand   *rand.Rand
	calls  int
	failed int
}

func newLearner(t *testing.T, f *droppingFake, seed uint64) *learner {
	t.Helper()
	l := &learner{t: t, f: f, log: &keptLog{}, rand: rand.New(rand.NewPCG(seed, seed))} //nolint:gosec // a test that can be played again
	l.db, l.c = openPool(t, f, Config{
		MaxOpen: 8, Logger: slog.New(l.log), LeakThreshold: -1,
		Discovery: &Discovery{Query: "idle limit"},
	})
	l.db.SetMaxIdleConns(8)
	return l
}

// call makes one call.
func (l *learner) call() {
	l.calls++
	if _, err := l.db.ExecContext(l.t.Context(), "DO 1"); err != nil {
		l.failed++
	}
}

// burst has so many connections in use at once.
func (l *learner) burst(n int) {
	held := make([]*sql.Conn, n)
	for i := range held {
		var err error
		held[i], err = l.db.Conn(l.t.Context())
		require.NoError(l.t, err)
		l.calls++
		if _, err := held[i].ExecContext(l.t.Context(), "DO 1"); err != nil {
			l.failed++
		}
	}
	for _, conn := range held {
		_ = conn.Close() // a dead one says so
	}
}

// lives calls for so long, with gaps between the calls of up to the longest.
func (l *learner) lives(long, longest time.Duration) {
	for end := time.Now().Add(long); time.Now().Before(end); {
		elapse(time.Duration(l.rand.Int64N(int64(longest))))
		l.call()
	}
}

// learned is the limit that was learned.
func (l *learner) learned() time.Duration { return l.c.Stats().LearnedIdleLimit }
