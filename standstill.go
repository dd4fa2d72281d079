package sqllease

import (
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Standstill is the report of a pool that stands still: callers wait for a connection, all
// connections are checked out, and nothing was done with any of them for
// [Config.StandstillThreshold]. It is reported when that is so, and once more when it is over.
type Standstill struct {
	Pool     string        // name of the pool
	Deadlock bool          // each connection is held by a goroutine that waits for another one itself: none of them goes on before one gives up
	Over     bool          // this is the report of its end; For is final
	Since    time.Time     // since when it stands still
	For      time.Duration // for how long
	Limit    int           // connections the pool allows; 0: no limit
	Lanes    []string      // the lanes that stand still, where their callers may not have what other lanes have; nil: the whole pool
	InUse    int           // connections checked out, in these lanes
	Waiting  int           // callers who wait
	Held     []HeldPlace   // by the places that took the connections, those with most connections first; at most 64
	Waits    []WaitPlace   // by the places that wait, those with most callers first; at most 64
	Failed   Stack         // where the caller waits who fails with ErrDeadlock (Config.FailDeadlockAfter); empty: none does

	nested *NestedAcquire // how the first of Held is related to who waits; nil: that is not known
}

// HeldPlace is a place in the code that holds connections of a pool that stands still.
type HeldPlace struct {
	Lease                // the oldest of the connections that were taken here
	Connections int      // how many there are
	Relation    Relation // what those who hold them have to do with a caller who waits
	WaitsAt     Stack    // where that caller waits; empty: there is no relation
}

// WaitPlace is a place in the code that waits for a connection of a pool that stands still.
type WaitPlace struct {
	Stack   Stack
	Callers int
	Longest time.Duration // the longest time that one of them has waited
}

// Relation says how the holder of a connection and a caller who waits belong together.
type Relation string

// How they do.
const (
	SameGoroutine  Relation = "the same goroutine"          // certain: the holder waits for itself
	StartedByIt    Relation = "a goroutine that it started" // the holder may wait for that
	SameTrace      Relation = "the same trace"              // they serve one request
	RelationOfNone Relation = ""                            // none is known
)

// String is the report as people read it, in several lines.
func (s Standstill) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sqllease: pool %q: %s%s\n", s.Pool, s.where(), s.happened())
	if s.Over {
		return b.String()
	}
	for _, h := range s.Held {
		fmt.Fprintf(&b, "  taken by   %s\n", h)
	}
	for _, w := range s.Waits {
		fmt.Fprintf(&b, "  waiting    %s\n", w)
	}
	fmt.Fprintf(&b, "  fix        %s\n", s.Fix())
	fmt.Fprintf(&b, "  end        %s\n", s.end())
	return b.String()
}

// String is the place in one line.
func (h HeldPlace) String() string {
	out := fmt.Sprintf("%s: %s, %s", h.Stack.site(), plural(h.Connections, "connection"), h.doing())
	if now := h.now(); now != "" {
		out += "; " + now
	}
	if h.Relation != RelationOfNone {
		out += fmt.Sprintf("; %s waits at %s", h.Relation, h.WaitsAt.site())
	}
	return out
}

// String is the place in one line.
func (w WaitPlace) String() string {
	return fmt.Sprintf("%s: %s, the longest for %v", w.Stack.site(), plural(w.Callers, "caller"), round(w.Longest))
}

// where names the lanes.
func (s Standstill) where() string {
	if len(s.Lanes) == 0 {
		return ""
	}
	return fmt.Sprintf("lane %s: ", strings.Join(s.Lanes, ", "))
}

// message is what kind of report it is: the text of its log record.
func (s Standstill) message() string {
	switch {
	case s.Over:
		return "the pool does not stand still any more"
	case s.Deadlock:
		return "deadlock: every connection is held by a goroutine that waits for another"
	}
	return "the pool stands still: callers wait, and nothing was done with any connection for longer than Config.StandstillThreshold"
}

// happened is the message of this report, with its figures.
func (s Standstill) happened() string {
	switch {
	case s.Over:
		return fmt.Sprintf("it does not stand still any more, after %v", round(s.For))
	case s.Deadlock:
		return fmt.Sprintf("deadlock for %v: all %s are held by goroutines that wait for another", round(s.For), plural(s.InUse, "connection"))
	}
	return fmt.Sprintf("it stands still for %v: %s, and nothing was done with any of the %s",
		round(s.For), waitText(s.Waiting), plural(s.InUse, "connection"))
}

func waitText(callers int) string {
	if callers == 1 {
		return "1 caller waits"
	}
	return fmt.Sprintf("%d callers wait", callers)
}

// Fix says what to do about it, in a sentence.
func (s Standstill) Fix() string {
	switch {
	case s.Over || len(s.Held) == 0:
		return ""
	case s.nested != nil:
		return s.nested.Fix()
	}
	h := s.Held[0]
	return Leak{Lease: h.Lease, Class: ClassUnused}.Fix()
}

// end says how it ends.
func (s Standstill) end() string {
	switch {
	case len(s.Failed) > 0:
		return fmt.Sprintf("the caller at %s gets ErrDeadlock (Config.FailDeadlockAfter), and the others go on", s.Failed.site())
	case s.Deadlock:
		return "it lasts until the context of one of these callers, or Config.AcquireTimeout, ends; with Config.FailDeadlockAfter, one of them fails and the others go on"
	}
	return "it lasts until one of those who hold a connection gives it back"
}

// recordedTexts are those that a recording has of the report.
func (s *Standstill) recordedTexts() (found, fix string) {
	return fmt.Sprintf("%s%s; held by %s; waiting at %s", s.where(), s.happened(), lines(s.Held), lines(s.Waits)), s.Fix()
}

// LogValue is the report as attributes, what matters most first.
func (s Standstill) LogValue() slog.Value {
	attrs := []slog.Attr{slog.Duration("for", round(s.For)), slog.Time("since", s.Since)}
	if s.Over {
		return slog.GroupValue(attrs...)
	}
	attrs = append([]slog.Attr{
		slog.String("held", lines(s.Held)), slog.String("waits", lines(s.Waits)),
		slog.String("fix", s.Fix()), slog.String("end", s.end()),
	}, attrs...)
	attrs = append(attrs, slog.Int("in_use", s.InUse), slog.Int("limit", s.Limit), slog.Int("waiting", s.Waiting))
	if len(s.Lanes) > 0 {
		attrs = append(attrs, slog.String("lanes", strings.Join(s.Lanes, ", ")))
	}
	if len(s.Held) > 0 {
		attrs = append(append(attrs, slog.String("holder_stack", s.Held[0].Stack.Line())), s.Held[0].nowStackAttrs()...)
	}
	if len(s.Waits) > 0 {
		attrs = append(attrs, slog.String("waiter_stack", s.Waits[0].Stack.Line()))
	}
	return slog.GroupValue(attrs...)
}

// lines are places in one line, the first of them.
func lines[T fmt.Stringer](places []T) string {
	const most = 8
	var all []string
	for i, p := range places {
		if i == most {
			all = append(all, fmt.Sprintf("and %s more", plural(len(places)-most, "place")))
			break
		}
		all = append(all, p.String())
	}
	return strings.Join(all, "; ")
}
