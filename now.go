package sqllease

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
	"github.com/sqllease/sqllease/internal/goroutines"
)

// Goroutine is what a goroutine did at the moment of the report, or of [Connector.LeasesNow]:
// one that took a connection, or used it last.
type Goroutine struct {
	Number    uint64        // as Go prints it; Go uses no number twice
	Took      bool          // it took the connection
	Used      bool          // it used the connection last
	Ended     bool          // it has ended: all that follows is empty
	Doing     string        // what it does, in words, such as "waits for a lock"
	For       time.Duration // at least for how long; 0: for less than a minute, or not known
	ForEver   bool          // Go has proven that nothing can wake it
	Site      string        // the application's line, as Stack.Site has it; empty: it is in no code of the application's
	Stack     string        // its calls as Go prints them, the innermost first
	CreatedBy string        // the function that started it; empty: not known
	Creator   uint64        // the number of the goroutine that started it; 0: not known

	line string // Stack in one line
}

// String is a sentence: "goroutine 12 waits for a lock at shop/ship.go:88 shop.call, for at
// least 3 minutes".
func (g Goroutine) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "goroutine %d", g.Number)
	switch {
	case g.Took && !g.Used:
		b.WriteString(", which took it,")
	case g.Used && !g.Took:
		b.WriteString(", which used it last,")
	}
	if g.Ended {
		return b.String() + " has ended"
	}
	b.WriteString(" " + g.Doing)
	if g.Site != "" {
		b.WriteString(" at " + g.Site)
	} else {
		b.WriteString(", in no code of yours")
	}
	switch {
	case g.ForEver:
		b.WriteString(", for ever: nothing can wake it")
	case g.For > 0:
		fmt.Fprintf(&b, ", for at least %s", inWords(g.For))
	}
	return b.String()
}

// inWords is a time as the runtime tells it: it counts minutes.
func inWords(d time.Duration) string {
	if d < time.Minute || d%time.Minute != 0 {
		return round(d).String()
	}
	return plural(int(d/time.Minute), "minute")
}

// now is what the goroutines of a lease do, in one line; empty: nobody looked, or nothing is known.
func (l Lease) now() string {
	var all []string
	for _, g := range l.Now {
		all = append(all, g.String())
	}
	return strings.Join(all, "; ")
}

// nowAttrs are the attributes of that.
func (l Lease) nowAttrs() (attrs []slog.Attr) {
	if len(l.Now) > 0 {
		attrs = append(attrs, slog.String("now", l.now()))
	}
	return attrs
}

// nowStackAttrs are those of the stacks, which are long.
func (l Lease) nowStackAttrs() (attrs []slog.Attr) {
	var all []string
	for _, g := range l.Now {
		if g.line != "" {
			all = append(all, g.line)
		}
	}
	if len(all) > 0 {
		attrs = append(attrs, slog.String("now_stack", strings.Join(all, "; ")))
	}
	return attrs
}

// hands are the goroutines that have to do with a lease.
type hands struct {
	took, used  uint64 // their numbers; 0: not known
	lane        gate.LaneID
	start, read clock.Instant // the one was there by then, the other by the time at which the lease was read
}

// there is when it is certain that one of them was there.
func (h hands) there(number uint64) clock.Instant {
	if number == h.took {
		return h.start
	}
	return h.read
}

// nowOf reads what they did from a look; nil: it is not known. queue tells which connection a
// goroutine waits for.
func (h hands) nowOf(look *goroutines.Look, queue func(number uint64) queued) (all []Goroutine) {
	for _, number := range []uint64{h.used, h.took} {
		if number == 0 || (len(all) > 0 && all[0].Number == number) {
			continue
		}
		found, known := look.Goroutine(number)
		if !known && !look.HadEnded(number, h.there(number)) {
			continue
		}
		g := Goroutine{Number: number, Took: number == h.took, Used: number == h.used, Ended: !known}
		if known {
			g.describe(found, queue)
		}
		all = append(all, g)
	}
	return all
}

// describe says what was found.
func (g *Goroutine) describe(found goroutines.Goroutine, queue func(number uint64) queued) {
	at := callstack.PresentOf(found.Frames)
	g.Site, g.Stack, g.line = at.Site(), at.String(), at.Line()
	g.For, g.ForEver = found.For, found.Leaked || neverWakes[found.State]
	g.CreatedBy, g.Creator = found.Created, found.Creator
	switch {
	case found.State == "select" && at.Calls(queueFunction):
		q := queue(g.Number)
		g.Doing, g.For = q.text(), max(g.For, q.since)
	case found.State == "select" && len(at.Inner) > 0 && at.Inner[0].Function == bareQueueFunction:
		g.Doing = "waits for a connection in the queue of database/sql"
	default:
		g.Doing = doingIn(found.State, at)
	}
}

// queued is what a goroutine waits for in the queue of a pool.
type queued struct {
	pool  string        // its name; empty: it has gone on since
	own   bool          // it is the pool of the lease
	since time.Duration // for how long, at the look
}

func (q queued) text() string {
	switch {
	case q.own:
		return "waits for a connection of this pool"
	case q.pool != "":
		return fmt.Sprintf("waits for a connection of pool %q", q.pool)
	}
	return "waits for a connection"
}

// The functions in which a caller waits for a connection: sqllease's and that of database/sql.
const (
	queueFunction     = "github.com/sqllease/sqllease/internal/gate.(*Gate[...]).Wait"
	bareQueueFunction = "database/sql.(*DB).conn"
)

// neverWakes are states that nothing ends.
var neverWakes = map[string]bool{"chan receive (nil chan)": true, "chan send (nil chan)": true, "select (no cases)": true}

// stateWords are the states of the runtime in plain words.
var stateWords = map[string]string{
	"running":                 "runs",
	"runnable":                "runs",
	"preempted":               "runs",
	"copystack":               "runs",
	"GC assist marking":       "runs",
	"GC assist wait":          "runs",
	"chan receive":            "waits to receive from a channel",
	"chan receive (nil chan)": "waits to receive from a nil channel",
	"chan send":               "waits to send to a channel",
	"chan send (nil chan)":    "waits to send to a nil channel",
	"select":                  "waits in a select for a channel",
	"select (no cases)":       "waits in an empty select",
	"sync.Mutex.Lock":         "waits for a lock",
	"sync.RWMutex.Lock":       "waits for a lock",
	"sync.RWMutex.RLock":      "waits for a lock",
	"semacquire":              "waits for a lock",
	"sync.WaitGroup.Wait":     "waits for other goroutines",
	"sync.Cond.Wait":          "waits for a signal",
	"IO wait":                 "waits for the network",
	"sleep":                   "sleeps",
	"coroutine":               "waits for an iterator",
	"syscall":                 "is in a call of the system, or of C",
}

// clients are functions that wait for an answer from the network by other means.
var clients = []struct{ function, words string }{
	{"net/http.(*Client).", "waits for the answer to an HTTP request"},
	{"net/http.(*Transport).", "waits for the answer to an HTTP request"},
	{"google.golang.org/grpc.(*ClientConn).", "waits for the answer to a gRPC call"},
	{"google.golang.org/grpc.(*clientStream).", "waits for the answer to a gRPC call"},
}

// answers are the states in which these wait.
var answers = map[string]bool{"select": true, "chan receive": true, "IO wait": true, "sync.Cond.Wait": true}

// doingIn says what a goroutine does in that state and at that place.
func doingIn(state string, at callstack.Present) string {
	words := stateWords[state]
	if words == "" {
		words = fmt.Sprintf("is in the state %q", state)
	}
	if at.InDatabase() {
		return words + " in a call of database/sql"
	}
	for _, c := range clients {
		if answers[state] && at.Calls(c.function) {
			return c.words
		}
	}
	return words
}
