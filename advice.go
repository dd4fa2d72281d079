package sqllease

import (
	"fmt"
	"strings"
	"time"

	"github.com/sqllease/sqllease/internal/advisor"
)

// Goal is what the limit of a pool is to achieve.
type Goal struct {
	Quantile float64       // the share of callers who wait no longer than Wait; 0: 0.99
	Wait     time.Duration // for a connection; 0: as long as the median hold
}

// Advice is what a recording says of the limit that a pool should have: see [Connector.Advise].
type Advice struct {
	Pool     string    // name of the pool
	From, To time.Time // of the recording
	Leases   int       // how often a connection was asked for in it
	Goal     Goal      // with its defaults

	Recorded LimitPoint // what callers saw
	Enough   bool       // they saw what the goal asks for: the limit is not the problem

	Limit     int     // the smallest limit that meets the goal; 0: see Refused
	Met       bool    // Limit meets the goal; else none does, and it is the best there is
	Low, High int     // Limit is between these, in 90 of 100 draws of the recording's parts
	Refused   Refusal // why there is no Limit; empty: there is one
	Try       int     // if there is none: the limit to set for another recording; 0: the one there is

	Curve    []LimitPoint // what callers would see with other limits
	Collapse int          // from this limit on, more connections make everything slower, or a pool that is full does not recover; 0: none was seen
	Floor    int          // with a smaller limit, nested acquires can deadlock (see [NestedAcquire]); 0: none were seen
	Ceiling  int          // the server has so many connections for this pool; 0: not known

	Seen     int     // the highest number of connections in use at once that was seen often
	Slowdown float64 // how many times longer a call takes if that many are in use; 0: not known
	Held     int     // connections that were in use all the time: leaks, perhaps
	Closed   bool    // callers seem to ask again as soon as they were served: with another limit, they would come at other times

	Hold        time.Duration // the median hold
	UnusedShare float64       // the share of all hold time in which connections were unused
	Places      []UnusedPlace // the places in the code where they were, the worst first
	DialShare   float64       // the share of all acquires that dialed
	SlowShare   float64       // the share of all hold time that is in holds of ten times the median or more
	Limited     int           // callers of lanes that have a Max: no limit of the pool changes how long they wait for that, so they are in none of the waits and responses
}

// LimitPoint is what callers see with a limit.
type LimitPoint struct {
	Limit          int           // 0: none
	P50, P99, P999 time.Duration // of the waits for a connection
	Wait           time.Duration // the wait that the goal's share of callers does not exceed
	Response       time.Duration // the mean time from asking for a connection to giving it back
	Utilisation    float64       // the share of the connections that are in use, on average; 0: there is no limit
	Met            bool          // it meets the goal
}

// UnusedPlace is a place in the code that leaves its connections unused.
type UnusedPlace struct {
	Stack Stack
	Share float64 // of the hold time of all places
}

// Refusal is why there is no advice.
type Refusal string

// Why there is no advice. The text says it in a few words; Advice.String says what to do.
const (
	RefusedTooFewLeases    = Refusal(advisor.TooFewLeases)
	RefusedTooShort        = Refusal(advisor.TooShort)
	RefusedLoadTooLow      = Refusal(advisor.LoadTooLow)
	RefusedLoadChanges     = Refusal(advisor.LoadChanges)
	RefusedGaveUp          = Refusal(advisor.GaveUp)
	RefusedClosedLoop      = Refusal(advisor.ClosedLoop)
	RefusedOverload        = Refusal(advisor.Overload)
	RefusedTooFar          = Refusal(advisor.TooFar)
	RefusedSlowdownUnknown = Refusal(advisor.SlowdownUnknown)
	RefusedFewBursts       = Refusal(advisor.FewBursts)
	RefusedUnsure          = Refusal(advisor.Unsure)
	RefusedConflict        = Refusal(advisor.Conflict)
)

// String is the advice as people read it: one paragraph.
func (a Advice) String() string {
	if a.Leases == 0 {
		return fmt.Sprintf("pool %q: nothing is recorded yet: call Connector.Record, and ask again after a busy hour", a.Pool)
	}
	parts := []string{fmt.Sprintf("pool %q: %s", a.Pool, a.whether())}
	if a.Refused != "" {
		parts = append(parts, a.refusal())
	} else {
		parts = append(parts, a.advised())
	}
	parts = append(parts, a.bounds()...)
	if a.Refused != RefusedTooFewLeases {
		parts = append(parts, a.causes()...)
	}
	return strings.Join(parts, " ")
}

// whether says whether the limit is the problem.
func (a Advice) whether() string {
	if a.Enough {
		within := fmt.Sprintf("within %v", round(a.Recorded.Wait))
		if a.Recorded.Wait == 0 {
			within = "at once"
		}
		return fmt.Sprintf("the limit is not the problem: %s got a connection %s, and the goal is %s.", a.callers(), within, a.goal())
	}
	return fmt.Sprintf("callers wait for connections: %s got one within %v, but the goal is %s.", a.callers(), round(a.Recorded.Wait), a.goal())
}

// goal is how long they may wait.
func (a Advice) goal() string {
	if a.Goal.Wait == a.Hold {
		return fmt.Sprintf("%v, the median hold", round(a.Goal.Wait))
	}
	return fmt.Sprint(round(a.Goal.Wait))
}

// callers are those of whom the goal speaks.
func (a Advice) callers() string { return fmt.Sprintf("%.4g %% of the callers", 100*a.Goal.Quantile) }

// now is the limit there is.
func (a Advice) now() string {
	if a.Recorded.Limit == 0 {
		return "it has none now"
	}
	return fmt.Sprintf("it is %d now", a.Recorded.Limit)
}

// advised says which limit to set.
func (a Advice) advised() string {
	between := ""
	if a.Low < a.High {
		between = fmt.Sprintf("; by this recording it is between %d and %d", a.Low, a.High)
	}
	switch {
	case a.Limit == a.Recorded.Limit:
		return fmt.Sprintf("The limit of %d is right%s.", a.Limit, between)
	case !a.Met && a.Enough:
		return fmt.Sprintf("But calls would be faster with a limit of %d (%s%s).", a.Limit, a.now(), between)
	case !a.Met:
		return fmt.Sprintf("No limit meets the goal; the best is %d (%s%s). Make the calls shorter, or fewer.", a.Limit, a.now(), between)
	case a.Enough:
		return fmt.Sprintf("A limit of %d would be enough (%s%s).", a.Limit, a.now(), between)
	}
	return fmt.Sprintf("Set the limit to %d (%s%s).", a.Limit, a.now(), between)
}

// refusal says why there is no limit, and what to do to know.
func (a Advice) refusal() string {
	try := "record again"
	if a.Try > 0 && a.Try != a.Recorded.Limit {
		try = fmt.Sprintf("set the limit to %d, and record again", a.Try)
	}
	switch a.Refused {
	case RefusedTooFewLeases:
		return fmt.Sprintf("Which limit it needs cannot be said: the recording has only %s. Let it record some thousands.", plural(a.Leases, "acquire"))
	case RefusedTooShort:
		return "Which limit it needs cannot be said: the recording is only as long as some holds. Record for longer: give Connector.Record a larger number."
	case RefusedLoadTooLow:
		return fmt.Sprintf("Which limit it needs cannot be said: hardly more than %s in use at once. Record again in a busy hour.", were(a.Seen))
	case RefusedLoadChanges:
		return "Which limit it needs cannot be said: the load grew or fell all through the recording. Record an hour in which it is steady, at its highest."
	case RefusedGaveUp:
		return fmt.Sprintf("Which limit it needs cannot be said: too many callers gave up, and nobody knows what they wanted to do. To find out, %s.", try)
	case RefusedClosedLoop:
		return fmt.Sprintf("Which limit it needs cannot be said: all connections are in use all the time, and callers seem to ask again as soon as they were served, so with more connections they would ask more often. To find out, %s.", try)
	case RefusedOverload:
		return fmt.Sprintf("Which limit it needs cannot be said: callers come faster than they are served, so they wait longer and longer. To find out, %s; if that changes nothing, the server is too slow for this load.", try)
	case RefusedTooFar:
		return fmt.Sprintf("It needs more, but how many cannot be said: no more than %s in use at once, and how the server does with many more is not known. To find out, %s.", were(a.Seen), try)
	case RefusedSlowdownUnknown:
		return fmt.Sprintf("Which limit it needs cannot be said: about as many connections were in use all the time, so how the server does with more or fewer is not known. To find out, %s.", try)
	case RefusedFewBursts:
		return "Which limit it needs cannot be said: it depends on one or two bursts in this recording. Record for longer: give Connector.Record a larger number."
	case RefusedConflict:
		return fmt.Sprintf("No limit is right: requests that hold a connection and wait for another need at least %d. Fix these first.", a.Floor)
	}
	return fmt.Sprintf("Which limit it needs cannot be said: parts of this recording say %d, and others %d. Record for longer: give Connector.Record a larger number.", a.Low, a.High)
}

// were is that so many connections were.
func were(n int) string {
	if n == 1 {
		return "1 connection was"
	}
	return plural(n, "connection") + " were"
}

// bounds says what keeps the limit from being any other.
func (a Advice) bounds() (say []string) {
	if a.Collapse > 0 {
		say = append(say, fmt.Sprintf("Stay below %d: from there on, more connections make everything slower.", a.Collapse))
	}
	if a.Limit-a.Held > a.Seen {
		say = append(say, fmt.Sprintf("No more than %s in use at once so far, so record again after the change.", were(a.Seen)))
	}
	if a.Floor > 1 && a.Refused != RefusedConflict {
		say = append(say, fmt.Sprintf("Never go below %d: requests that hold a connection and wait for another could deadlock.", a.Floor))
	}
	if a.Ceiling > 0 && (a.Limit >= a.Ceiling || a.Recorded.Limit > a.Ceiling) {
		say = append(say, fmt.Sprintf("The server has only %d connections for this pool.", a.Ceiling))
	}
	if a.Held > 0 {
		say = append(say, fmt.Sprintf("All the time %s in use and did not come back: look for leaks.", were(a.Held)))
	}
	if a.Limited > 0 {
		say = append(say, fmt.Sprintf("The waits of %s are not counted: their lane has a Max (Config.Lanes), and waits for that.", plural(a.Limited, "caller")))
	}
	if a.Closed && a.Refused != RefusedClosedLoop {
		say = append(say, "Callers seem to ask again as soon as they were served, so with another limit they come at other times: record again after a change.")
	}
	return say
}

// From these shares on, a cause is worth a sentence.
const (
	muchUnused = 0.2
	muchDialed = 0.1
	muchSlow   = 0.5
)

// causes says what else keeps connections away.
func (a Advice) causes() (say []string) {
	if a.UnusedShare >= muchUnused {
		s := fmt.Sprintf("%.0f %% of the time, connections that were checked out were unused", 100*a.UnusedShare)
		if len(a.Places) > 0 {
			s += fmt.Sprintf(", most of it at %s (%.0f %%)", a.Places[0].Stack.site(), 100*a.Places[0].Share)
		}
		say = append(say, s+": give them back sooner, and you need fewer.")
	}
	if a.DialShare >= muchDialed {
		say = append(say, fmt.Sprintf("%.0f %% of the acquires opened a new connection: raise SetMaxIdleConns, so that connections are kept.", 100*a.DialShare))
	}
	if a.SlowShare >= muchSlow {
		say = append(say, fmt.Sprintf("%.0f %% of the time is in a few long holds (%v and more): make these shorter first.", 100*a.SlowShare, round(10*a.Hold)))
	}
	return say
}
