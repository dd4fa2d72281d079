package sqllease

import (
	"context"
	"database/sql/driver"
	"io"
	"strings"
	"sync"
	"time"
)

// blockersFake is the driver of a MariaDB whose calls wait for locks, and that says who blocks
// whom. A call of "wait" lasts until its context ends, or for an hour.
type blockersFake struct {
	dial     func(ctx context.Context, number int) error   // nil: every dial succeeds at once
	question func(ctx context.Context, query string) error // nil: every question is answered at once
	number   func(of uint64) uint64                        // what CONNECTION_ID() alone says; nil: the truth
	waits    func() [][]driver.Value                       // who waits for whom: waiter, holder, "RECORD", table
	process  func(number uint64) []driver.Value            // nil: one of user app, active, or idle in a transaction
	answers  map[string]func() ([][]driver.Value, error)   // of queries with that in them
	mu       sync.Mutex
	dials    []time.Time     // guarded by mu
	open     map[uint64]bool // guarded by mu
	asked    []time.Time     // guarded by mu: when somebody asked who blocks whom
	asking   int             // guarded by mu: connections on which that is asked at the moment
	together int             // guarded by mu: the most of them at once
}

func (f *blockersFake) Driver() driver.Driver            { return f }
func (f *blockersFake) Open(string) (driver.Conn, error) { return f.Connect(context.Background()) }

func (f *blockersFake) Connect(ctx context.Context) (driver.Conn, error) {
	f.mu.Lock()
	f.dials = append(f.dials, time.Now())
	number := len(f.dials)
	f.mu.Unlock()
	if f.dial != nil {
		if err := f.dial(ctx, number); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = map[uint64]bool{}
	}
	f.open[uint64(number)] = true
	return &blockersFakeConn{f: f, number: uint64(number)}, nil
}

// questions are when it was asked who blocks whom.
func (f *blockersFake) questions() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func (f *blockersFake) opened() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.open)
}

func (f *blockersFake) dialed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.dials)
}

type blockersFakeConn struct {
	f      *blockersFake
	number uint64
	asks   bool
}

func (c *blockersFakeConn) Close() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	delete(c.f.open, c.number)
	if c.asks {
		c.f.asking--
	}
	return nil
}

func (c *blockersFakeConn) Begin() (driver.Tx, error)           { return leakFakeTx{&leakFake{}}, nil }
func (c *blockersFakeConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (c *blockersFakeConn) ResetSession(context.Context) error  { return nil }
func (c *blockersFakeConn) IsValid() bool                       { return true }

func (c *blockersFakeConn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	if query == "wait" {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Hour):
		}
	}
	return driver.RowsAffected(1), nil
}

func (c *blockersFakeConn) QueryContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	if strings.Contains(query, "VERSION()") {
		c.asks = true
		c.f.mu.Lock()
		c.f.asked = append(c.f.asked, time.Now())
		c.f.asking++
		c.f.together = max(c.f.together, c.f.asking)
		c.f.mu.Unlock()
	}
	if c.f.question != nil {
		if err := c.f.question(ctx, query); err != nil {
			return nil, err
		}
	}
	rows, err := c.answer(query)
	if err != nil {
		return nil, err
	}
	return &blockersFakeRows{rows}, nil
}

func (c *blockersFakeConn) answer(query string) ([][]driver.Value, error) {
	for part, answer := range c.f.answers {
		if strings.Contains(query, part) {
			return answer()
		}
	}
	switch {
	case strings.Contains(query, "VERSION()"):
		return [][]driver.Value{{int64(c.number), "10.11.0-MariaDB", "app@%", int64(0), "app@10.0.0.1"}}, nil
	case strings.Contains(query, "CONNECTION_ID()"):
		if c.f.number != nil {
			return [][]driver.Value{{int64(c.f.number(c.number))}}, nil
		}
		return [][]driver.Value{{int64(c.number)}}, nil
	case strings.Contains(query, "INNODB_LOCK_WAITS"):
		if c.f.waits != nil {
			return c.f.waits(), nil
		}
	case strings.Contains(query, "p.ID IN"):
		return c.processes(query), nil
	}
	return nil, nil
}

// processes are those that are asked for: the even ones wait, the odd ones are idle.
func (c *blockersFakeConn) processes(query string) (rows [][]driver.Value) {
	_, list, _ := strings.Cut(query, "IN (")
	for text := range strings.SplitSeq(strings.TrimSuffix(list, ")"), ",") {
		var number uint64
		for _, digit := range text {
			number = 10*number + uint64(digit-'0')
		}
		if c.f.process != nil {
			rows = append(rows, c.f.process(number))
			continue
		}
		rows = append(rows, []driver.Value{int64(number), "app", "10.0.0.7:4711", nil, "Query", "7.5", "Updating", "UPDATE t SET a = 'secret'", "RUNNING"})
	}
	return rows
}

type blockersFakeRows struct{ left [][]driver.Value }

func (r *blockersFakeRows) Columns() []string {
	if len(r.left) == 0 {
		return []string{"none"}
	}
	return make([]string, len(r.left[0]))
}
func (r *blockersFakeRows) Close() error { return nil }
func (r *blockersFakeRows) Next(dest []driver.Value) error {
	if len(r.left) == 0 {
		return io.EOF
	}
	copy(dest, r.left[0])
	r.left = r.left[1:]
	return nil
}
