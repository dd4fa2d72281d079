package sqllease

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqllease/sqllease/internal/drivers"
)

// ErrClosed is returned by an acquire on a [Connector] that was closed, and by
// the acquires that were waiting when it was.
var ErrClosed = errors.New("sqllease: the connector is closed; no connection can be acquired from it any more")

// ErrDeadlock is returned by an acquire that fails by [Config.FailDeadlockAfter].
var ErrDeadlock = errors.New("sqllease: deadlock: every connection is held by a goroutine that waits for another")

// ErrOverloaded is returned by an acquire that was refused since too many wait ([Config.MaxWaiting]),
// or have waited for too long ([Config.QueueTarget]). Whoever serves a request may answer that it
// is to come again later: docs/overload.md.
var ErrOverloaded = errors.New("sqllease: overloaded: more callers want a connection than can be served")

// errOutOfTime is the cause of an acquire that exceeded Config.AcquireTimeout.
var errOutOfTime = errors.New("sqllease: acquire timeout")

// ConfigError says which field of a [Config] cannot be meant, and what to
// write instead. Field is the argument's name where it was not the Config.
type ConfigError struct {
	Field  string // the field of Config, or the argument
	Value  string // what was found in it
	Reason string // why that cannot be, and the remedy
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("sqllease: %s is %s: %s", e.Field, e.Value, e.Reason)
}

// AcquireError is the error of an acquire that ended before it had a connection:
// by the caller's context, by [Config.AcquireTimeout], by [Config.FailDeadlockAfter], by
// [Config.MaxWaiting] or [Config.QueueTarget], or because the connector was closed. It says how the pool stood, who held its
// connections (if its lane is full, only those of that lane), and whether it was dialing the server.
// Making one costs O(1), or, with a full lane, a look at each connection that is checked out;
// stacks are symbolised when it is printed.
type AcquireError struct {
	Pool     string        // name of the pool
	Limit    int           // connections the pool allows; 0: no limit
	InUse    int           // connections checked out
	Idle     int           // connections that are ready
	Dialing  int           // connections being dialed
	Waiting  int           // waiters in the queue, or in that of its lane, when it gave up, this one included if it was queued
	Position int           // this waiter's place in the queue then, 1 is next; 0: it was not queued, or the connector was closed
	Waited   time.Duration // how long this acquire took until it gave up
	Within   time.Duration // Config.AcquireTimeout, if that ended it; 0: something else did
	Queued   time.Duration // how long of it it was in the queue
	Dial     time.Duration // for how long it was dialing when it ended; 0: it was not
	Server   string        // what it dialed, as host:port or the path of a socket; empty: it did not, or that is not known
	Holders  []Lease       // the oldest leases, at most 8
	Err      error         // context.DeadlineExceeded, context.Canceled, ErrDeadlock, ErrOverloaded or ErrClosed
	DialErr  error         // what the driver said of the dial that ended with it, or that was refused since the server has no room; nil: nothing more

	Lane      string // its lane; empty: Config.Lanes has none
	LaneInUse int    // connections that this lane had, dials included
	LaneMax   int    // how many it may have; 0: any number

	DialLimit   int    // how many connections may be dialed at once, since a dial has failed; 0: any number, or the pool is full
	DialFailure string // what that dial met with, as error.type names it, such as "refused"; empty: there was none
}

// Unwrap returns Err.
func (e *AcquireError) Unwrap() error { return e.Err }

// Is reports whether DialErr is the target, for errors.Is.
func (e *AcquireError) Is(target error) bool { return e.DialErr != nil && errors.Is(e.DialErr, target) }

// As finds the target in DialErr, for errors.As.
func (e *AcquireError) As(target any) bool { return e.DialErr != nil && errors.As(e.DialErr, target) }

// Timeout reports whether time ran out, as net.Error does.
func (e *AcquireError) Timeout() bool {
	t, ok := e.Err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

func (e *AcquireError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sqllease: pool %q: no connection %s%s: %s", e.Pool, e.ended(), e.dialed(), e.load())
	if e.Position > 0 {
		b.WriteString(", " + e.others())
		b.WriteString(e.keptBack())
	}
	b.WriteString(e.heldBy())
	return b.String()
}

// others says who waited beside this caller when it gave up.
func (e *AcquireError) others() string {
	n := max(e.Waiting, e.Position) - 1
	if n <= 0 {
		return "nobody else waiting"
	}
	return fmt.Sprintf("%s still waiting (%d ahead, %d behind)", plural(n, "other"), e.Position-1, n-e.Position+1)
}

// ended says after how long, and by what.
func (e *AcquireError) ended() string {
	switch {
	case e.Err == ErrOverloaded && e.Queued == 0:
		return fmt.Sprintf("(refused at once, since %d wait already: Config.MaxWaiting)", e.Waiting)
	case e.Err == ErrOverloaded:
		return fmt.Sprintf("(refused after %v in the queue: everybody has waited for too long lately: Config.QueueTarget)", round(e.Queued))
	case e.Within > 0:
		return fmt.Sprintf("within %v (Config.AcquireTimeout)", e.Within)
	}
	return fmt.Sprintf("after %v (%s)", round(e.Waited), e.why())
}

// dialed says what it was dialing, and for how long.
func (e *AcquireError) dialed() string {
	if e.Dial == 0 {
		return ""
	}
	server := cmp.Or(e.Server, "the server")
	if e.Queued >= brief {
		return fmt.Sprintf(", after %v in the queue and %v of dialing %s", round(e.Queued), round(e.Dial), server)
	}
	return fmt.Sprintf(", still dialing %s after %v", server, round(e.Dial))
}

// keptBack says why it waited, if it was not for the limit.
func (e *AcquireError) keptBack() string {
	if e.DialLimit == 0 {
		return ""
	}
	if e.DialFailure == drivers.TooMany {
		return fmt.Sprintf("; the server has no room for more connections (%s)", e.DialFailure)
	}
	return fmt.Sprintf("; a dial failed (%s), so at most %d at a time dial until the server answers", e.DialFailure, e.DialLimit)
}

const heldByText = "; held by "

// why is the text of Err. A context of the application's own may say anything, with its data
// in it: of such an error, only the type is told.
func (e *AcquireError) why() string {
	if e.Err == nil || saysNothingOfData(e.Err) {
		return fmt.Sprint(e.Err)
	}
	return fmt.Sprintf("%T", e.Err)
}

// heldBy names the holders by the places that took their leases.
func (e *AcquireError) heldBy() string {
	var b strings.Builder
	for i, site := range bySite(e.Holders) {
		b.WriteString([]string{heldByText, ", "}[min(i, 1)])
		b.WriteString(site.String())
	}
	return b.String()
}

// laneIsFull tells whether its lane had all that it may have.
func (e *AcquireError) laneIsFull() bool { return e.LaneMax > 0 && e.LaneInUse >= e.LaneMax }

// load says how full the pool was.
func (e *AcquireError) load() string {
	s := fmt.Sprintf("%d of %d in use, %d idle", e.InUse, e.Limit, e.Idle)
	if e.Limit == 0 {
		s = fmt.Sprintf("%d in use (no limit), %d idle", e.InUse, e.Idle)
	}
	if e.LaneMax > 0 {
		s += fmt.Sprintf(", %d of %d%s", e.LaneInUse, e.LaneMax, inLane(e.Lane))
	} else if e.Lane != "" {
		s += fmt.Sprintf(", %d%s", e.LaneInUse, inLane(e.Lane))
	}
	if e.Dialing > 0 {
		s += fmt.Sprintf(", %d being dialed", e.Dialing)
	}
	return s
}

// ReclaimedError is the error of a call on a connection whose session was taken
// away, because its holder had not used it for [Config.ReclaimAfter].
type ReclaimedError struct {
	Pool  string        // name of the pool
	After time.Duration // for how long the connection was unused: Config.ReclaimAfter
	Lease Lease         // the lease, as it stood when it was reclaimed
}

func (e *ReclaimedError) Error() string {
	return fmt.Sprintf("sqllease: pool %q: the connection was closed, because it was unused for %v (Config.ReclaimAfter); taken by %s (lease %d); "+
		"give it back sooner, or raise Config.ReclaimAfter", e.Pool, e.After, e.Lease.Stack.site(), e.Lease.ID)
}

// holderSite is what the leases taken at one place in the code have in common.
type holderSite struct {
	site    string
	count   int
	oldest  Lease
	callers []callerCount // of the site, which is a helper where there are several
}

type callerCount struct {
	caller string
	count  int
}

func (h holderSite) String() string {
	return fmt.Sprintf("%s (%d%sthe oldest for %v, %s)", h.site, h.count, h.calledBy(), round(h.oldest.Hold), h.oldest.doing())
}

// calledBy says who called the site, where it is not always the same code.
func (h holderSite) calledBy() string {
	if len(h.callers) < 2 {
		return ", "
	}
	var by []string
	for _, c := range h.callers {
		by = append(by, fmt.Sprintf("%d called by %s", c.count, cmp.Or(c.caller, "no other code of yours")))
	}
	return ": " + strings.Join(by, ", ") + "; "
}

func (h *holderSite) add(l Lease) {
	h.count++
	caller := l.Stack.caller()
	i := slices.IndexFunc(h.callers, func(c callerCount) bool { return c.caller == caller })
	if i < 0 {
		i = len(h.callers)
		h.callers = append(h.callers, callerCount{caller: caller})
	}
	h.callers[i].count++
}

// bySite groups leases, oldest first, by the place that took them.
func bySite(leases []Lease) []holderSite {
	var sites []holderSite
	index := map[string]int{}
	for _, l := range leases {
		site := l.Stack.site()
		i, ok := index[site]
		if !ok {
			i = len(sites)
			index[site] = i
			sites = append(sites, holderSite{site: site, oldest: l})
		}
		sites[i].add(l)
	}
	return sites
}

// plural is so many of something.
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// round cuts a duration to what a reader can use.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d >= time.Microsecond:
		return d.Round(time.Microsecond)
	}
	return d
}

// errPanicked stands in spans and metrics for the error of a call in which
// the driver panicked. The panic itself goes on.
var errPanicked = errors.New("sqllease: the driver panicked")

// errUnclosed stands in spans and metrics for the error of a query whose rows
// nobody can close any more.
var errUnclosed = errors.New("sqllease: the rows were never closed")
