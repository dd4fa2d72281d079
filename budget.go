package sqllease

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// A server has so many connections for everybody. Where the pools of all instances may open
// more, that is said as soon as the server has told; where it refuses one, the error says
// which limit was met, and how many of the connections are ours. Whoever met it waits for one of
// those, as if the pool's limit were what the server allows.

// ServerFullError is the error of a dial that the server refused since it has no room for
// another connection: too many for everybody (MySQL 1040, SQLSTATE 53300), for this user, or
// for the database (1203, 1226, 53300). It unwraps to the driver's error.
type ServerFullError struct {
	Pool           string // name of the pool
	Limit          string // what was met: "server", "user" or "database"
	MaxConnections int    // how many connections the server has for everybody, as it said last; zero: not known
	Ours           int    // how many of them this pool has
	Err            error  // the driver's
}

func (e *ServerFullError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sqllease: pool %q: ", e.Pool)
	switch {
	case e.Limit != "server":
		fmt.Fprintf(&b, "the server has no more connections for this %s; %d are of this pool. Lower Config.MaxOpen, or raise the limit of the %s",
			e.Limit, e.Ours, e.Limit)
	case e.MaxConnections > e.Ours:
		fmt.Fprintf(&b, "all %d connections of the server are taken: %d by this pool, %d by others. Lower Config.MaxOpen here or there, or raise max_connections",
			e.MaxConnections, e.Ours, e.MaxConnections-e.Ours)
	default:
		fmt.Fprintf(&b, "all connections of the server are taken: %d by this pool. Lower Config.MaxOpen here or elsewhere, or raise max_connections", e.Ours)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

// Unwrap returns the driver's error.
func (e *ServerFullError) Unwrap() error { return e.Err }

// explained is the error of a dial, where something can be added to it.
func (c *Connector) explained(err error) error {
	limit := drivers.FullLimit(err)
	if limit == "" {
		return err
	}
	e := &ServerFullError{Pool: c.cfg.Name, Limit: limit, Err: err}
	if known := c.asking.known.Load(); known != nil {
		e.MaxConnections = known.MaxConnections
	}
	var f gate.Figures
	c.gate.Look(func() { f = c.gate.FiguresLocked() })
	e.Ours = f.Open - f.Dialing
	return e
}

// isFull tells whether a dial failed since the server has no room.
func isFull(err error) bool {
	_, full := err.(*ServerFullError) //nolint:errorlint // explained made it
	return full
}

// fullPatience is how long a caller waits whose dial was refused for that, before the next
// refusal fails it: then whoever waits with a connection in hand lets go of that.
const fullPatience = 5 * time.Second

// waitsOn has a caller wait again whose dial was refused since the server has no room, in the
// place that it had. It does not where the pool has no connection that could come back.
func (a *acquire) waitsOn(ctx context.Context, err error) bool {
	if !isFull(err) || ctx.Err() != nil {
		return false
	}
	now := clock.Now()
	if a.full == nil {
		a.full, a.fullAt = err, now
	}
	if now.Sub(a.fullAt) >= fullPatience || !a.c.gate.Rejoin(&a.Waiter, now) {
		return false
	}
	a.c.warnFull(err, now)
	return true
}

// warnFull says, once a minute, that callers wait since the server has no room: nobody has an
// error that would say so.
func (c *Connector) warnFull(err error, now clock.Instant) {
	next := c.warned.full.Load()
	if int64(now) < next || !c.warned.full.CompareAndSwap(next, int64(now.Add(fullEvery))) {
		return
	}
	c.cfg.warnAside("sqllease: the server has no room for another connection, so callers wait for those that this pool has",
		slog.String("pool", c.cfg.Name), slog.String("server", c.cfg.endpoint.String()),
		slog.Int("limit", c.limit()), slog.String("error", c.cfg.said(err)))
}

// fullEvery is the time between two such warnings.
const fullEvery = time.Minute

// checkBudget says once for each pair of figures that the server has too few connections.
func (c *Connector) checkBudget(a *drivers.Answer) {
	limit, instances := c.limit(), max(c.cfg.Instances, 1)
	needed, room := limit*instances, a.MaxConnections-a.Reserved
	if limit == 0 || a.MaxConnections == 0 || needed <= room || c.warned.budget.Swap(int64(needed)<<32|int64(room)) == int64(needed)<<32|int64(room) {
		return
	}
	c.cfg.warnAside("sqllease: the server has fewer connections than this pool may open: under load, some callers would get an error. "+
		"Lower Config.MaxOpen, or raise the server's max_connections",
		slog.String("pool", c.cfg.Name), slog.String("server", c.cfg.endpoint.String()),
		slog.Int("limit", limit), slog.Int("instances", instances), slog.Int("needed", needed),
		slog.Int("max_connections", a.MaxConnections), slog.Int("reserved", a.Reserved))
}
