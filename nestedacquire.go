package sqllease

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// NestedAcquire is the report of a place in the code where a request holds a connection and
// waits for another: if as many requests do so at once as there are connections, the pool
// deadlocks. It is no leak. Each place is reported once.
type NestedAcquire struct {
	Pool     string        // name of the pool
	Holder   Lease         // the newest connection that the request holds
	Waiter   Stack         // where it waits for another
	Waited   time.Duration // for how long it waited; 0: for less than can be told
	Relation Relation      // what says that they are of one request: SameGoroutine or SameTrace
	Limit    int           // connections the pool allows, or its lane
	Lane     string        // the lane, if it has a limit of its own (Lane.Max); empty: it has none
	Each     int           // connections that such a request needs at once
	Requests int           // how many requests had, or wanted, connections of the pool then, or of that lane
}

// Needed is the limit with which so many such requests at once cannot deadlock:
// Requests × (Each − 1) + 1.
func (n NestedAcquire) Needed() int { return n.Requests*(n.Each-1) + 1 }

// Fix says what to do about it, in a sentence, with the figures of the pool.
func (n NestedAcquire) Fix() string {
	if n.Holder.OpenRows > 0 {
		return "close the open rows first: call rows.Close() before the inner statement (a defer is too late), or read them to their end; " + n.limits()
	}
	return "give the connection that the request has back first, or run the inner statement on it (its *sql.Tx or *sql.Conn); if it was forgotten, close it; " + n.limits()
}

// limits says what the limit has to be, or, where it is enough for the requests there are, for
// how many it is.
func (n NestedAcquire) limits() string {
	each := plural(n.Each, "connection")
	if n.Needed() <= n.Limit && n.Each > 1 {
		most := (n.Limit - 1) / (n.Each - 1)
		return fmt.Sprintf("%s of %d is enough for %s at once, with %s each", n.limit(), n.Limit, plural(most, "such request"), each)
	}
	return fmt.Sprintf("or raise %s from %d to at least %d: that is enough for %s at once, with %s each",
		n.limit(), n.Limit, n.Needed(), plural(n.Requests, "such request"), each)
}

// limit names what is to be raised.
func (n NestedAcquire) limit() string {
	if n.Lane != "" {
		return fmt.Sprintf("the limit of lane %q", n.Lane)
	}
	return "the limit"
}

// String is the report as people read it, in several lines.
func (n NestedAcquire) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sqllease: pool %q: a request holds a connection and waits for another\n", n.Pool)
	fmt.Fprintf(&b, "  taken by   %s, held %v, %s\n", n.Holder.Stack.site(), round(n.Holder.Hold), n.Holder.doing())
	fmt.Fprintf(&b, "  waiting    %s\n", n.Waiter.site())
	fmt.Fprintf(&b, "  known by   %s\n", n.Relation)
	fmt.Fprintf(&b, "  fix        %s\n", n.Fix())
	return b.String()
}

// LogValue is the report as attributes, what matters most first.
func (n NestedAcquire) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("holder", n.Holder.Stack.site()),
		slog.String("waiter", n.Waiter.site()),
		slog.String("fix", n.Fix()),
		slog.String("statement", n.Holder.Statement),
		slog.String("relation", string(n.Relation)),
		slog.Int("limit", n.Limit),
		slog.Int("needed", n.Needed()),
		slog.Int("requests", n.Requests),
		slog.Int("connections_per_request", n.Each),
		slog.Uint64("lease", n.Holder.ID),
		slog.Duration("hold", round(n.Holder.Hold)),
	}
	if n.Waited > 0 {
		attrs = append(attrs, slog.Duration("waited", round(n.Waited)))
	}
	return slog.GroupValue(append(attrs,
		slog.String("holder_stack", n.Holder.Stack.Line()),
		slog.String("waiter_stack", n.Waiter.Line()))...)
}
