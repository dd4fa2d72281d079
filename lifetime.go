package sqllease

import (
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// Dialect names a kind of server. It decides how the server is asked for its idle limit, and
// how its statements are read.
type Dialect string

// The dialects. Servers that are compatible with one of them (Percona, Aurora,
// YugabyteDB, …) use its name.
const (
	DialectMySQL       Dialect = drivers.MySQL
	DialectMariaDB     Dialect = drivers.MariaDB
	DialectTiDB        Dialect = drivers.TiDB
	DialectPostgreSQL  Dialect = drivers.PostgreSQL
	DialectCockroachDB Dialect = drivers.CockroachDB
)

// Discovery is how a server is asked for its limits, where sqllease does not know how:
// [Config.Discovery].
type Discovery struct {
	// Query is one statement, with an answer of at most 64 rows. It is asked once a minute
	// at most, on a connection that nobody has at the time, within 2 seconds. Empty: the
	// server is never asked.
	Query string

	// Parse reads the answer: rows of values, as the driver returns them, with strings in
	// place of []byte; there is at least one. It is called once for each answer. Nil: the
	// first value is the idle limit, in seconds, and zero says that there is none.
	Parse func(rows [][]driver.Value) (ServerLimits, error)
}

// NoDiscovery is the [Config.Discovery] with which a server is never asked.
var NoDiscovery = &Discovery{}

// ServerLimits are what a server does to a connection by itself. Zero: nothing.
type ServerLimits struct {
	Idle           time.Duration // it closes one that is idle for longer
	IdleTx         time.Duration // it ends one that is idle in a transaction for longer
	ReadOnly       bool          // it takes no writes
	MaxConnections int           // it has so many, for everybody; zero: not known
}

// discoveryOf is what is asked with that Config, of a server of that kind; nil: nothing is.
func discoveryOf(own *Discovery, kind drivers.Dialect) *drivers.Discovery {
	switch {
	case own == nil:
		return kind.Discovery
	case own.Query == "":
		return nil
	case own.Parse == nil:
		return &drivers.Discovery{Query: own.Query, Parse: drivers.ParseIdleLimit}
	}
	parse := own.Parse
	return &drivers.Discovery{Query: own.Query, Parse: func(rows [][]driver.Value) (drivers.Answer, error) {
		l, err := parse(rows)
		if err != nil {
			return drivers.Answer{}, drivers.Unlike(err)
		}
		if l.Idle > 0 && l.Idle < time.Millisecond {
			return drivers.Answer{}, drivers.Unlike(fmt.Errorf("%v, which is below 1ms; did you forget a unit?", l.Idle))
		}
		return drivers.Answer{
			Limits:   drivers.Limits{Idle: max(l.Idle, 0), IdleTx: max(l.IdleTx, 0)},
			ReadOnly: l.ReadOnly, MaxConnections: max(l.MaxConnections, 0),
		}, nil
	}}
}

// margin is how long before a limit a session is given up: a tenth of it,
// between half a second and half a minute, and never more than half of it. It
// has to exceed a round trip and scheduling noise, since a close that is on
// its way cannot be seen.
func margin(limit time.Duration) time.Duration {
	return min(max(limit/10, 500*time.Millisecond), 30*time.Second, limit/2)
}

// beforeLimit is how long something may last that has to end before a limit; zero: for ever.
func beforeLimit(limit time.Duration) time.Duration {
	if limit == 0 {
		return 0
	}
	return limit - margin(limit)
}

// lifetime is how long a session may live. It is a value: everything about
// expiry follows from it, the session's last use, and the time.
type lifetime struct {
	born   clock.Instant
	limits drivers.Limits
	idle   time.Duration // longest time without wire traffic; 0: no limit
	whole  time.Duration // longest age; 0: no limit
	byIdle bool          // that is what the server's idle limit allows
	role   bool          // it ends since its server takes no writes any more
}

// newLifetime chooses the bounds of a session's lifetime.
func newLifetime(born clock.Instant, found drivers.Limits, cfg *settings) lifetime {
	t := lifetime{born: born, limits: found}
	server := beforeLimit(found.Idle)
	t.limits.Idle = drivers.MinLimit(found.Idle, cfg.NetworkIdleLimit)
	t.idle = beforeLimit(t.limits.Idle)
	t.whole = cfg.MaxLifetime
	if !cfg.IdleOnly {
		t.whole = drivers.MinLimit(t.whole, server)
		t.byIdle = server > 0 && t.whole == server
	}
	return t
}

// within is the lifetime of a session that was told later what the limits are: never a
// longer one.
func (t *lifetime) within(found drivers.Limits, cfg *settings) lifetime {
	told := newLifetime(t.born, found, cfg)
	told.role = t.role
	if t.idle == drivers.MinLimit(t.idle, told.idle) {
		told.limits.Idle, told.idle = t.limits.Idle, t.idle
	}
	if t.whole == drivers.MinLimit(t.whole, told.whole) {
		told.whole, told.byIdle = t.whole, t.byIdle
	}
	return told
}

// idleWithin lowers the idle limit to one that was learned; zero: none was. It does not bound
// the age: a connection that is used is not idle.
func (t *lifetime) idleWithin(learned time.Duration) {
	t.limits.Idle = drivers.MinLimit(t.limits.Idle, learned)
	t.idle = drivers.MinLimit(t.idle, beforeLimit(learned))
}

// bounds are what the gate has to know of it. It ends sessions earlier, so that not too many
// end together: by up to that share of their lifetime, and, where that is not enough, by more.
func (t *lifetime) bounds(jitter float64) gate.Life {
	l := gate.Life{Idle: t.idle, Jitter: jitter, Chance: rand.Float64()}
	if t.whole > 0 {
		l.End = t.born.Add(t.whole)
	}
	return l
}
