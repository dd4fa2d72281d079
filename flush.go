package sqllease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
)

// Flush replaces the connections of today: after a change of credentials, of DNS, or of the
// server behind an address. Each of them ends within that time, one after the other in equal
// steps, so that the server does not get all dials at once; zero or less: at once. One that is
// checked out is closed when it comes back, and never cut. A dial that is under way is made
// again. Flush does not wait.
func (c *Connector) Flush(over time.Duration) {
	c.replaceAll(over)
}

// Ready waits until [Config.MinIdle] connections are ready, and at least one, so that a
// service can fail when it starts, and not in its first request. A server that refuses the
// login, or does not know the database, is an error at once. The server is asked for its limits,
// so that they are known from the start. One that cannot be reached, or
// has no room, is tried again until the context ends; the error unwraps to what the last
// dial met with. Without MinIdle, the connection that proves it is closed again.
func (c *Connector) Ready(ctx context.Context) error {
	var last error
	for failures := 1; ; failures++ {
		err := c.ready(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return c.notReady(ctx.Err(), cmp.Or(last, err))
		case isFinal(err):
			return c.notReady(nil, err)
		}
		last = err
		if !pause(ctx, min(backoff(failures), longestReadyPause)) {
			return c.notReady(ctx.Err(), err)
		}
	}
}

// longestReadyPause is the longest pause between two dials of Ready.
const longestReadyPause = time.Second

// notReady says why, and what ended the waiting, if anything did.
func (c *Connector) notReady(ended, why error) error {
	if ended == nil || errors.Is(why, ended) {
		return fmt.Errorf("sqllease: pool %q is not ready: %w", c.cfg.Name, why)
	}
	return fmt.Errorf("sqllease: pool %q is not ready (%w): %w", c.cfg.Name, ended, why)
}

// isFinal tells whether another dial would meet with the same.
func isFinal(err error) bool {
	if errors.Is(err, ErrClosed) {
		return true
	}
	switch drivers.Failure(err) {
	case drivers.Authentication, drivers.UnknownDatabase, drivers.TLS:
		return true
	}
	return false
}

// ready dials what is missing, until a dial fails.
func (c *Connector) ready(ctx context.Context) error {
	if c.cfg.MinIdle == 0 {
		conn, err := c.Connect(ctx)
		if err != nil {
			return err
		}
		h := conn.(*handle)
		if err := c.askHeld(ctx, h); err != nil {
			_ = h.Close()
			return err
		}
		h.IsValid()   // the lease ends; the connection may go to somebody who waits
		_ = h.Close() // it has proven what it was to prove
		return nil
	}
	for !c.isReady() {
		switch {
		case c.life.Err() != nil:
			return ErrClosed
		case c.gate.Reserve():
			if err := c.fillOne(ctx); err != nil {
				return err
			}
		case !pause(ctx, 10*time.Millisecond): // others dial
			return ctx.Err()
		}
	}
	return nil
}

// askHeld asks the session of a handle, where that is due. It is in use meanwhile.
func (c *Connector) askHeld(ctx context.Context, h *handle) (lost error) {
	if err := h.use(); err != nil {
		return err
	}
	defer h.unuse()
	h.unlockLate() // the question takes its own turn
	returned := false
	defer func() {
		if !returned {
			h.discard()
		}
	}()
	h.session.lease.enter(callPing, "", clock.Now())
	lost = c.askNew(ctx, h.session)
	h.session.lease.leave(clock.Now())
	returned = true
	return lost
}

// isReady tells whether as many connections are there as are to be, or as the limit allows. One
// that is asked, or was dialed just now, is not there yet.
func (c *Connector) isReady() (enough bool) {
	c.gate.Look(func() {
		f := c.gate.FiguresLocked()
		there := f.Ready
		c.gate.EachHeldLocked(func(s *session) bool {
			if s.lease.isOn() {
				there++
			}
			return true
		})
		enough = !f.Shut && (there >= c.cfg.MinIdle || f.Limit > 0 && there >= f.Limit)
	})
	return enough
}

// pause waits so long; false: the context ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
