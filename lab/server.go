// Package lab asks whether the advisor's answers are right. It has a database in the process
// that slows down like a real one, lets callers come to real pools of it, and tries every limit.
// All of that is in virtual time (testing/synctest), so that a minute of load takes as long as the
// work of the pool itself, and every run is the same. Its table and its pictures are in
// docs/sizing.md; `make lab` writes them.
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

// do does some work, which takes the longer the more is in flight.
func (s *server) do(work time.Duration) {
	if work <= 0 {
		return
	}
	c := &call{done: make(chan struct{})}
	s.mu.Lock()
	s.passLocked()
	c.until = s.clock + work.Seconds()
	heap.Push(&s.calls, c)
	s.nextLocked()
	s.mu.Unlock()
	<-c.done
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

// Connect connects at once.
func (s *server) Connect(context.Context) (driver.Conn, error) { return &conn{s}, nil }

// Driver is the driver.
func (s *server) Driver() driver.Driver { return serverDriver{} }

type serverDriver struct{}

// Open is not needed.
func (serverDriver) Open(string) (driver.Conn, error) { return nil, driver.ErrSkip }

type conn struct{ server *server }

// ExecContext does the job of the context.
func (c *conn) ExecContext(ctx context.Context, _ string, _ []driver.NamedValue) (driver.Result, error) {
	j := ctx.Value(jobKey{}).(job)
	if j.sleep > 0 {
		<-time.After(j.sleep)
	}
	c.server.do(j.work)
	return driver.ResultNoRows, nil
}

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
