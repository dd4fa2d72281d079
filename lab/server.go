// Package lab asks whether the advisor's answers are right, and what lanes and overload control
// do. It has a database in the process that slows down like a real one, and lets callers come to
// real pools of it. All of that is in virtual time (testing/synctest), so that a minute of load
// takes as long as the work of the pool itself. Its tables and its pictures are in docs/sizing.md
// and docs/overload.md; `make lab` writes them.
package lab

import (
	"container/heap"
	"context"
	"database/sql/driver"
	"sync"
	"time"
)

// server is a database. All calls in flight get on at one pace, which depends on their number.
type server struct {
	slower func(n int) float64 // how many times longer than alone a call takes, with n in flight
	dial   time.Duration       // how long it takes to connect

	mu    sync.Mutex
	at    time.Time   // guarded by mu: the time of the last change
	clock float64     // guarded by mu: the seconds of work that a call has got done which is in flight all along
	calls flight      // guarded by mu
	timer *time.Timer // guarded by mu: for the next one that is done
}

// call is one in flight: it is done when the clock stands at until.
type call struct {
	until float64
	done  chan struct{}
}

// do does some work, which takes the longer the more is in flight. If the context ends, nobody
// waits for it any more; but the server does it to the end.
func (s *server) do(ctx context.Context, work time.Duration) error {
	if work <= 0 {
		return nil
	}
	c := &call{done: make(chan struct{})}
	s.mu.Lock()
	s.passLocked()
	c.until = s.clock + work.Seconds()
	heap.Push(&s.calls, c)
	s.nextLocked()
	s.mu.Unlock()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passLocked brings the clock up to now.
func (s *server) passLocked() {
	now := time.Now()
	if len(s.calls) > 0 {
		s.clock += now.Sub(s.at).Seconds() / s.slower(len(s.calls))
	}
	s.at = now
}

// nextLocked sets the timer for the call that is done next.
func (s *server) nextLocked() {
	if s.timer != nil {
		s.timer.Stop()
	}
	if len(s.calls) > 0 {
		left := (s.calls[0].until - s.clock) * s.slower(len(s.calls))
		s.timer = time.AfterFunc(time.Duration(left*float64(time.Second))+1, s.done)
	}
}

// done ends the calls that are done.
func (s *server) done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.passLocked()
	for len(s.calls) > 0 && s.calls[0].until <= s.clock {
		close(heap.Pop(&s.calls).(*call).done)
	}
	s.nextLocked()
}

// flight are the calls in flight, as a heap.
type flight []*call

func (f flight) Len() int           { return len(f) }
func (f flight) Less(i, j int) bool { return f[i].until < f[j].until }
func (f flight) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }

// Push is heap.Interface.
func (f *flight) Push(c any) { *f = append(*f, c.(*call)) }

// Pop is heap.Interface.
func (f *flight) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

// job is what a caller has the server do. It comes with the context.
type job struct {
	work   time.Duration // on the server
	sleep  time.Duration // a wait on the server that costs it nothing
	unused time.Duration // with the connection, after that, but without the server
}

type jobKey struct{}

// with is a context with a job.
func (j job) with(ctx context.Context) context.Context { return context.WithValue(ctx, jobKey{}, j) }

// Connect connects.
func (s *server) Connect(ctx context.Context) (driver.Conn, error) {
	if err := pause(ctx, s.dial); err != nil {
		return nil, err
	}
	return &conn{server: s}, nil
}

// pause waits, if there is something to wait for.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Driver is the driver.
func (s *server) Driver() driver.Driver { return serverDriver{} }

type serverDriver struct{}

// Open is not needed.
func (serverDriver) Open(string) (driver.Conn, error) { return nil, driver.ErrSkip }

// conn is a connection. A call whose context ends is the last one on it, since nobody reads the
// answer: so drivers close it, and the next caller needs another.
type conn struct {
	server *server
	broken bool
}

// ExecContext does the job of the context.
func (c *conn) ExecContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Result, error) {
	j := ctx.Value(jobKey{}).(job)
	err := pause(ctx, j.sleep)
	if err == nil {
		err = c.server.do(ctx, j.work)
	}
	c.broken = err != nil
	return driver.ResultNoRows, err
}

// Ping is as good as the connection.
func (c *conn) Ping(context.Context) error {
	if c.broken {
		return driver.ErrBadConn
	}
	return nil
}

// IsValid is false once a call was given up.
func (c *conn) IsValid() bool { return !c.broken }

// Prepare is not needed.
func (c *conn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }

// Begin is not needed.
func (c *conn) Begin() (driver.Tx, error) { return nil, driver.ErrSkip }

// Close does nothing.
func (c *conn) Close() error { return nil }

// gunther is a server that slows down by Gunther's law.
func gunther(alpha, beta float64) func(n int) float64 {
	return func(n int) float64 { return 1 + float64(n-1)*(alpha+beta*float64(n)) }
}

// cores is a server with so many cores. Calls beyond them share the cores, and each of them costs
// a share of a call's time more.
func cores(c int, each float64) func(n int) float64 {
	return func(n int) float64 {
		if n <= c {
			return 1
		}
		return float64(n) / float64(c) * (1 + each*float64(n-c))
	}
}
