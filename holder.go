package sqllease

import (
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Lease is one checkout of one connection, from the moment database/sql gets
// it to the moment it gives it back, as it stood when it was read.
type Lease struct {
	ID       uint64        // counts the leases of a connector, from 1
	Acquired time.Time     // when the acquire ended and the hold began
	Hold     time.Duration // since then
	Queue    time.Duration // part of the acquire: waiting at the gate
	Dial     time.Duration // part of the acquire: connecting, authenticating, discovery
	Reset    time.Duration // part of the acquire: session reset and validation

	Busy      bool      // a driver call is in flight
	Call      Call      // the call in flight, or the last one; empty: none yet
	Since     time.Time // since when it is in that call, or unused
	InTx      bool      // inside a transaction begun through database/sql
	OpenRows  int       // result sets not closed
	Statement string    // the last statement, its literals replaced by ?
	Begun     time.Time // when the call in flight, or the last one, began; zero: none yet

	SpanContext trace.SpanContext // the span that acquired it
	Stack       Stack             // the stack that acquired it

	Unwrapped bool // the application has the driver's own connection, see Unwrap: what it does with it cannot be seen
}

// doing says in a few words what the lease is used for.
func (l Lease) doing() string {
	at := l.Acquired.Add(l.Hold)
	switch idle := round(at.Sub(l.Since)); {
	case l.Busy && l.Statement != "" && ofStatement(l.Call):
		return fmt.Sprintf("in %s for %v: %s", l.Call, idle, shorten(l.Statement))
	case l.Busy:
		return fmt.Sprintf("in %s for %v", l.Call, idle)
	case l.OpenRows > 0:
		return fmt.Sprintf("unused for %v, with rows open", idle)
	case l.InTx:
		return fmt.Sprintf("idle in transaction for %v", idle)
	case l.Unwrapped:
		return fmt.Sprintf("unused for %v, as far as can be seen: the application has the driver's own connection", idle)
	default:
		return fmt.Sprintf("unused for %v", idle)
	}
}

// shorten cuts a statement to what fits a line.
func shorten(statement string) string {
	const most = 120
	if len(statement) <= most {
		return statement
	}
	cut := most
	for cut > 0 && statement[cut]&0xC0 == 0x80 { // not inside a character
		cut--
	}
	return statement[:cut] + "…"
}
