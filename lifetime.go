package sqllease

import (
	"math/rand/v2"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// Dialect names a kind of server. It decides how the server is asked for its idle limit.
type Dialect string

// The dialects. Servers that are compatible with one of them (Percona, Aurora,
// YugabyteDB, …) use its name.
const (
	DialectMySQL       Dialect = drivers.MySQL
	DialectMariaDB     Dialect = drivers.MariaDB
	DialectTiDB        Dialect = drivers.TiDB
	DialectPostgreSQL  Dialect = drivers.PostgreSQL
	DialectCockroachDB Dialect = drivers.CockroachDB
	DialectNone        Dialect = "none" // never ask the server anything
)

// margin is how long before a limit a session is given up: a tenth of it,
// between half a second and half a minute, and never more than half of it. It
// has to exceed a round trip and scheduling noise, since a close that is on
// its way cannot be seen.
func margin(limit time.Duration) time.Duration {
	return min(max(limit/10, 500*time.Millisecond), 30*time.Second, limit/2)
}

// minLimit is the smaller of two limits of which zero means none.
func minLimit(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// lifetime is how long a session may live. It is a value: everything about
// expiry follows from it, the session's last use, and the time.
type lifetime struct {
	born   clock.Instant
	limits drivers.Limits
	idle   time.Duration // longest time without wire traffic; 0: no limit
	whole  time.Duration // longest age; 0: no limit
	byIdle bool          // that is what the idle limit allows
}

// newLifetime chooses the bounds of a session's lifetime.
func newLifetime(born clock.Instant, found drivers.Limits, network, most time.Duration) lifetime {
	found.Idle = minLimit(found.Idle, network)
	t := lifetime{born: born, limits: found}
	if found.Idle > 0 {
		t.idle = found.Idle - margin(found.Idle)
	}
	t.whole = minLimit(most, t.idle)
	t.byIdle = t.idle > 0 && t.whole == t.idle
	return t
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
