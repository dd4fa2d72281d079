package sqllease

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
)

// Most leases are those of a single call: db.Exec, for one, acquires a connection, runs
// a statement and gives the connection back, and from the first to the last of it no code
// of the application runs. So what tells the holder of a connection from a call that is in
// flight can be left out: the session is in use from the acquire to the release, no call
// claims it, nobody takes it between two, and the lease is in its last call until it ends.
// A query's is one until its rows are returned, which the application reads when it will,
// and again when they are closed.
//
// Where something of the application's runs all the same, it may take its time, wait for
// another connection, or never return. So a lease ceases to be one of a single call
// before an argument is asked what it is (a driver.Valuer is), and before a span is
// filtered, started or ended; and it is none where somebody counts.

// forOneCall tells whether what is acquired on this stack is for one call of database/sql's,
// which gives it back, or has rows to return, before the application goes on. It is asked
// for each acquire, so that only a stack that is recognised is looked at.
func (c *Connector) forOneCall(k *callstack.Known) bool {
	return k.Recognised() && k.Told(telling)&isSingle != 0 && !c.metrics.counts()
}

// acquired counts an acquire. If Config.MetricAttributes ends the goroutine, gone gives the
// session up.
func (h *handle) acquired(ctx context.Context, p parts, took time.Duration, gone func(*handle)) {
	if !h.single {
		h.count(ctx, p, took, gone)
	}
}

func (h *handle) count(ctx context.Context, p parts, took time.Duration, gone func(*handle)) {
	returned := false
	defer func() {
		if !returned {
			gone(h)
		}
	}()
	h.c.metrics.acquired(ctx, h.session.lease.lane, p, took)
	returned = true
}

// opens makes a lease of a single call one like any other, in a call or between two, and
// tells whether it was one. Its session is in use still.
func (h *handle) opens() bool {
	if !h.single || !h.leased {
		return false
	}
	h.single = false
	h.session.lease.show()
	return true
}

// checks notes that an argument is checked, between two calls of the lease's.
func (h *handle) checks(v *driver.NamedValue) {
	if !saysItself(v.Value) || !h.opens() {
		return
	}
	l := &h.session.lease
	l.leave(clock.Now())
	l.unuse()
}

// saysItself tells whether an argument may be asked what it is: as a driver.Valuer, by way
// of pointers, or by the driver in a way of its own.
func saysItself(v any) bool {
	switch v.(type) {
	case nil, bool, string, []byte, time.Time, float64, float32,
		int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		return false
	}
	return true
}
