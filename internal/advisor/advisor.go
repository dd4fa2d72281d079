// Package advisor says which limit a pool of connections should have. It goes through a recording
// of the connections that were taken, once for each limit, as if the pool had had that limit. It
// knows nothing of SQL, of telemetry, or of how a recording is made.
//
// The pool serves its callers first come, first served. So each caller's wait at another limit
// follows from the arrivals and the work that were recorded: this is the recursion of Kiefer and
// Wolfowitz ("On the theory of queues with many servers", 1955), done on what happened and not on
// distributions (replay.go). Where the pool has lanes, they are replayed too (lanes.go).
//
// A server slows down when more connections use it at once. How much is read from the recording,
// as Gunther's Universal Scalability Law ("Guerrilla Capacity Planning", 2007; slowdown.go). That
// the limit of a pool then has an optimum, and that it can be found from outside, is shown by
// Schroeder, Harchol-Balter, Iyengar, Nahum and Wierman ("How to determine a good
// multi-programming level for external scheduling", ICDE 2006).
//
// How sure the answer is, the recording says too: its parts are drawn again and again, and each
// draw gives an answer (range.go). Where it cannot tell, it says so, and why (refusal.go).
package advisor

import (
	"math"
	"slices"
	"time"
)

// Recording is what was seen of a pool.
type Recording struct {
	Leases  []Lease       // in any order
	Length  time.Duration // 0: until the last lease has ended
	Limit   int           // of the pool, while it was recorded; 0: none
	Floor   int           // with fewer connections, requests that hold one and take another can deadlock; 0: none do
	Ceiling int           // more connections the server does not have for this pool; 0: not known
	Lanes   []Lane        // shares of the pool; nil: there are none
}

// Lane is a share of the pool.
type Lane struct {
	Max     int // connections that it has at most; 0: any number
	Reserve int // connections that the others leave for it
}

// Lease is one checkout of a connection. Times count from the beginning of the recording.
type Lease struct {
	Arrived  time.Duration // when somebody asked for the connection
	Acquired time.Duration // when he got it
	Ended    time.Duration // when he gave it back, or gave up
	Dial     time.Duration // how much of the acquire was dialing
	Reset    time.Duration // and how much was resetting
	Unused   time.Duration // how much of the hold the connection was unused, in the caller's hands
	InUse    int           // connections that were taken just then, this one included; 0: not known
	Place    int           // where in the code, as any number
	Lane     int           // the index of his lane
	Failed   bool          // he got none
}

// Goal is what a limit is to achieve.
type Goal struct {
	Quantile float64       // the share of callers who wait no longer than Wait; 0: 0.99
	Wait     time.Duration // 0: as long as the median hold of the recording
}

// Advice is the answer.
type Advice struct {
	Goal Goal // as it was taken

	Limit     int     // the smallest limit that meets the goal, if one does; 0: refused
	Met       bool    // that limit meets the goal; else it is the best there is
	Low, High int     // the limit is between these, in 90 of 100 draws
	Refused   Refusal // why there is no limit
	Try       int     // if refused: the limit to set for the next recording; 0: the one there is

	Curve    []Point // what other limits do
	Collapse int     // from this limit on, more connections make everything slower, or a full pool does not recover; 0: none was seen

	Seen     int     // the highest number of connections in use at once that was seen often enough
	Slowdown float64 // how many times slower a call is, if that many are in use
	Held     int     // connections that were in use all the time, and of which nothing was recorded

	Recorded    Point         // what callers saw while it was recorded
	Enough      bool          // they saw what the goal asks for: the limit is not the problem
	Closed      bool          // callers seem to ask again as soon as they were served
	Hold        time.Duration // the median
	UnusedShare float64       // of all hold time, how much the connections were unused
	Places      []Place       // where, the worst first
	DialShare   float64       // of all acquires, how many dialed
	SlowShare   float64       // of all hold time, how much is in holds of ten medians and more
	Limited     int           // callers of lanes that have a Max: no limit of the pool changes how long they wait for that, so their waits are in none of the figures
}

// Point is what callers see at a limit.
type Point struct {
	Limit          int
	P50, P99, P999 time.Duration // of the waits for a connection
	Wait           time.Duration // which the goal's share of them does not exceed
	Response       time.Duration // the mean, from asking for a connection to giving it back
	Utilisation    float64       // the share of the connections that are in use, on average
	Met            bool          // the goal
}

// Place is a place in the code that leaves connections unused.
type Place struct {
	Place int
	Share float64 // of all hold time: how much it leaves connections unused
}

// What of the pool's behaviour counts as worse than the best.
const (
	asGood = 1.05 // a mean response up to this many times the best is as good
	worse  = 1.25 // from this on it is worse
)

// Advise returns the limit that the pool should have for what was recorded.
func Advise(of Recording, goal Goal) Advice {
	l := newLoad(of)
	a := Advice{}
	if len(l.items) == 0 {
		a.Goal, a.Refused = goal.or(0), TooFewLeases
		return a
	}
	a.Goal = goal.or(l.medianHold())
	l.describe(&a, of.Limit)
	if reason := l.unusable(&a); reason != "" {
		a.Refused = reason
		return a
	}
	newSearch(l, a.Goal, a.Seen).answer(&a, of)
	return a
}

// or is the goal, with its defaults.
func (g Goal) or(wait time.Duration) Goal {
	if !(g.Quantile > 0 && g.Quantile < 1) {
		g.Quantile = 0.99
	}
	if g.Wait <= 0 {
		g.Wait = wait
	}
	return g
}

// limits are those that are tried: all up to twelve, and then about twenty for each power of ten,
// since no recording tells 100 from 101.
func limits(most int) []int {
	list := []int{1}
	for last := 1; last < most; {
		last = min(most, max(last+1, last*9/8))
		list = append(list, last)
	}
	return list
}

// quantile is the least of values, which are sorted, that so many of them do not exceed.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	const rounding = 1e-9
	k := int(math.Ceil(q*float64(len(sorted))*(1-rounding))) - 1
	return sorted[min(max(k, 0), len(sorted)-1)]
}

// median is that of values in any order, which it sorts.
func median(values []float64) float64 {
	slices.Sort(values)
	return quantile(values, 0.5)
}
