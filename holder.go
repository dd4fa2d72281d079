package sqllease

import (
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Lease is one checkout of one connection, from the moment database/sql gets it until it
// gives it back. The fields say how it was when it was read.
type Lease struct {
	ID       uint64        // the number of the lease: a connector counts its leases from 1
	Acquired time.Time     // when the connection was handed out
	Hold     time.Duration // how long it has been held since then
	Queue    time.Duration // part of the acquire: waiting in the queue
	Dial     time.Duration // part of the acquire: connecting and authenticating
	Reset    time.Duration // part of the acquire: making the connection ready

	Busy      bool      // a driver call is in flight
	Call      Call      // the call in flight, or the last one; empty: none yet
	Since     time.Time // when that call began, or since when the connection is unused
	InTx      bool      // inside a transaction begun through database/sql
	OpenRows  int       // rows not closed
	Statement string    // the last statement, with ? for every literal
	Begun     time.Time // when the call in flight, or the last one, began; zero: no call yet

	SpanContext trace.SpanContext // the span in which it was acquired
	Stack       Stack             // the stack that acquired it

	ConnectionID uint64      // the server's number of the connection: MySQL's CONNECTION_ID(), PostgreSQL's process; 0: not known (see Config.FindBlockers)
	Now          []Goroutine // what the goroutine does now that used it last, and the one that took it, if that is another; empty: nobody looked, or it is not known

	Lane string // the lane of Config.Lanes that it was acquired in; empty: there are none

	Unwrapped bool // the application has the driver's own connection (see Unwrap), and sqllease cannot see what it does with it

	hands hands
}

// String is the lease in one line, for people.
func (l Lease) String() string {
	s := fmt.Sprintf("lease %d: taken by %s%s, held %v, %s", l.ID, l.Stack.site(), inLane(l.Lane), round(l.Hold), l.doing())
	if l.Statement != "" && !strings.Contains(s, shorten(l.Statement)) {
		s += "; last statement: " + shorten(l.Statement)
	}
	if len(l.Now) > 0 {
		s += "; now: " + l.now()
	}
	return s
}

// inLane says which lane something is in, where there are any.
func inLane(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" in lane %q", name)
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
	return cut(statement, 120)
}

// cut cuts a text to at most so many bytes, and says that it did.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	at := most
	for at > 0 && text[at]&0xC0 == 0x80 { // not inside a character
		at--
	}
	return text[:at] + "…"
}
