package sqllease

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
)

// A dial outlives a caller whose time runs out, for some seconds: what it leads to is for the
// next. Otherwise a server that is slow to let anybody in, as one is that was frozen or has
// just started, would never have a connection again with callers who have less time than
// that: each would dial, leave, and have it work on a dial that nobody wants. database/sql
// has its opener for it, which dials without any caller's time for those who queue there.
//
// A caller who cancels has their dial cancelled.

// dialGrace is how long a dial lasts at least.
const dialGrace = 5 * time.Second

// mostLeft is how many dials may outlive their callers at once. Where there is no limit, callers
// who come again and again would have a server that answers nobody work on ever more of them.
const mostLeft = 64

// dialing is a dial on a goroutine of its own.
type dialing struct {
	c     *Connector
	lane  gate.LaneID
	ctx   context.Context
	bound *dialBound

	// state changes once: whoever changes it decides whose the dial is when it has ended.
	state atomic.Int32
	done  chan struct{} // closed where the dial ended while its caller was there, who reads what follows

	s        *session
	err      error
	panicked any
	returned bool // the driver did
}

// Whose a dial is.
const (
	dialAwaited int32 = iota // nobody's yet
	dialEnded                // its caller's
	dialLeft                 // whoever waits has it when it ends
)

// until is when the caller's time runs out; zero: never.
func (a *acquire) until(ctx context.Context) clock.Instant {
	until := a.deadline
	if at, ok := ctx.Deadline(); ok {
		if by := clock.Now().Add(time.Until(at)); until.IsZero() || by < until {
			until = by
		}
	}
	return until
}

// dialAhead dials for a caller whose time may run out before.
func (a *acquire) dialAhead(ctx, outer context.Context, start clock.Instant) (*session, error) {
	inner, bound := boundedBy(context.WithoutCancel(ctx), start.Add(dialGrace))
	d := &dialing{c: a.c, lane: a.lane, ctx: inner, bound: bound, done: make(chan struct{})}
	go d.run()
	var over <-chan time.Time
	if !a.deadline.IsZero() {
		t := time.NewTimer(a.deadline.Until())
		defer t.Stop()
		over = t.C
	}
	why := context.DeadlineExceeded
	select {
	case <-d.done:
		return d.result(outer, a, start)
	case <-over:
	case <-outer.Done():
		why = outer.Err()
	}
	if !errors.Is(why, context.DeadlineExceeded) {
		bound.cancel(why)
	} else if d.leave() {
		return nil, a.endedInDial(outer, why, why, start)
	}
	<-d.done
	return d.result(outer, a, start)
}

// leave leaves the dial to whoever waits when it ends; false: it has ended.
func (d *dialing) leave() bool {
	d.c.keepers.begin() // before anybody else has it
	if !d.state.CompareAndSwap(dialAwaited, dialLeft) {
		d.c.keepers.end()
		return false
	}
	switch left := d.c.left.Add(1); {
	case d.c.life.Err() != nil:
		d.bound.end()
	case left > mostLeft:
		d.bound.cancel(errOutOfTime)
	}
	return true
}

func (d *dialing) run() {
	unbind := context.AfterFunc(d.c.life, func() {
		if d.state.Load() == dialLeft { // else leave sees it
			d.bound.end()
		}
	})
	defer func() {
		if !d.returned {
			d.panicked = recover()
		}
		unbind()
		if d.state.CompareAndSwap(dialAwaited, dialEnded) {
			close(d.done)
			return
		}
		d.deliver()
	}()
	d.s, d.err = d.c.dial(d.ctx, d.lane)
	d.returned = true
}

// deliver gives what a dial led to, that its caller has left, to whoever waits, or has it
// ready for the next.
func (d *dialing) deliver() {
	defer d.c.keepers.end()
	defer d.c.left.Add(-1)
	defer d.c.cfg.recovered("dialing for a caller whose time had run out")
	switch {
	case d.panicked != nil:
		d.bound.end()
		panic(d.panicked)
	case d.s == nil:
		d.bound.end()
		return
	}
	d.s.release = d.bound.keep()
	if d.c.gate.Deliver(&d.s.Session, clock.Now()) {
		_ = d.c.retire(d.s)
		return
	}
	d.c.pulse.begin(clock.Now()) // which looks until somebody came for it, or it is closed
}

// result is what a dial led to that has ended while its caller was there. A panic of the
// driver's goes on in the caller.
func (d *dialing) result(outer context.Context, a *acquire, start clock.Instant) (*session, error) {
	if d.returned && d.err == nil {
		d.s.release = d.bound.keep()
		return d.s, nil
	}
	d.bound.end()
	switch {
	case d.panicked != nil:
		panic(d.panicked)
	case !d.returned:
		runtime.Goexit() // as the driver did
	}
	return nil, a.dialError(outer, d.err, start, !a.deadline.IsZero() && ranOut(d.err, a.deadline.Until()))
}
