package sqllease

import (
	"time"

	"github.com/sqllease/sqllease/internal/advisor"
	"github.com/sqllease/sqllease/internal/callstack"
)

// Advise says which limit the pool should have for the load that [Connector.Record] has recorded,
// or why it cannot know. It goes through the recording as if the pool had had another limit, once
// for each, which takes some tenths of a second for ten thousand connections taken. It does not
// change the pool: [Connector.SetMaxOpen] does. What it does, and what it does not know, is in
// docs/sizing.md.
func (c *Connector) Advise(goal Goal) Advice {
	return c.advice(c.Recording(), goal)
}

// advice is what the advisor makes of a recording.
func (c *Connector) advice(r Recording, goal Goal) Advice {
	lanes, at := advisableLanes(r.Lanes)
	leases, places := advisable(&r, at)
	found := advisor.Advise(advisor.Recording{
		Leases: leases, Length: recordedFor(&r), Limit: r.Limit, Floor: c.floor(), Ceiling: c.ceiling(), Lanes: lanes,
	}, advisor.Goal(goal))
	a := Advice{
		Pool: r.Pool, From: r.From, To: r.To, Leases: len(leases),
		Goal: Goal(found.Goal), Recorded: LimitPoint(found.Recorded), Enough: found.Enough,
		Limit: found.Limit, Met: found.Met, Low: found.Low, High: found.High,
		Refused: Refusal(found.Refused), Try: found.Try, Collapse: found.Collapse, Floor: c.floor(), Ceiling: c.ceiling(),
		Seen: found.Seen, Slowdown: found.Slowdown, Held: found.Held, Closed: found.Closed,
		Hold: found.Hold, UnusedShare: found.UnusedShare, DialShare: found.DialShare, SlowShare: found.SlowShare, Limited: found.Limited,
	}
	for _, p := range found.Curve {
		a.Curve = append(a.Curve, LimitPoint(p))
	}
	for _, p := range found.Places {
		a.Places = append(a.Places, UnusedPlace{Stack: places[p.Place], Share: p.Share})
	}
	return a
}

// advisableLanes are lanes as the advisor reads them, and at which index it has each.
func advisableLanes(of map[string]Lane) (lanes []advisor.Lane, at map[string]int) {
	if len(of) == 0 {
		return nil, nil
	}
	at = map[string]int{}
	for name, l := range of {
		at[name] = len(lanes)
		lanes = append(lanes, advisor.Lane{Max: l.Max, Reserve: l.Reserve})
	}
	if _, named := of[DefaultLane]; !named {
		at[DefaultLane] = len(lanes)
		lanes = append(lanes, advisor.Lane{})
	}
	return lanes, at
}

// advisable are the leases that began in the recording, and the stacks by their places. Those that
// go on count as if they had ended as it was read. Whoever asked after the first who still
// waited then is left out: nothing is known of those beside him.
func advisable(r *Recording, lanes map[string]int) (leases []advisor.Lease, places []Stack) {
	known := map[placeStack]int{}
	until := r.To
	if len(r.Waiting) > 0 {
		until = r.Waiting[0].Start
	}
	for _, list := range [][]RecordedLease{r.Leases, r.Out} {
		for i := range list {
			l := &list[i]
			if l.Start.Before(r.From) || !l.Start.Before(until) {
				continue
			}
			key := placeStackOf(callstack.Stack(l.Stack).Outside())
			place, seen := known[key]
			if !seen {
				place = len(places)
				known[key] = place
				places = append(places, l.Stack)
			}
			leases = append(leases, l.advisable(r, place, lanes[l.Lane]))
		}
	}
	return leases, places
}

// advisable is the lease as the advisor reads it. What of its acquire was neither the queue nor the
// dial goes with the reset.
func (l *RecordedLease) advisable(r *Recording, place, lane int) advisor.Lease {
	end := l.End
	if end.IsZero() {
		end = r.To
	}
	a := advisor.Lease{
		Arrived: l.Start.Sub(r.From), Acquired: l.Acquired.Sub(r.From), Ended: end.Sub(r.From),
		Dial: l.Dial, Unused: l.Unused, InUse: l.InUse, Place: place, Lane: lane, Failed: l.Acquired.IsZero(),
	}
	a.Reset = max(a.Acquired-a.Arrived-l.Queue-l.Dial, 0)
	return a
}

// recordedFor is how long the recording is, as far as all who came are in it.
func recordedFor(r *Recording) time.Duration {
	if len(r.Waiting) > 0 {
		return r.Waiting[0].Start.Sub(r.From)
	}
	return r.To.Sub(r.From)
}

// floor is the limit with which no nested acquires that were seen can deadlock; 0: there were none.
func (c *Connector) floor() (n int) {
	c.gate.Look(func() { n = c.queue.floor })
	return n
}

// ceiling is how many connections the server has for this pool; 0: it is not known.
func (c *Connector) ceiling() int {
	known := c.asking.known.Load()
	if known == nil || known.MaxConnections == 0 {
		return 0
	}
	return max((known.MaxConnections-known.Reserved)/max(c.cfg.Instances, 1), 1)
}
