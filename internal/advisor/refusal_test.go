package advisor

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestARecordingThatCannotTellIsRefused(t *testing.T) {
	const ms = time.Millisecond
	normal := loadOf{rate: poisson(600), work: exponential(0.01)}
	server := gunther(0.02, 0.001)
	goal := Goal{Wait: 10 * ms}
	for name, c := range map[string]struct {
		recording Recording
		want      Refusal
	}{
		"nothing":      {Recording{}, TooFewLeases},
		"a few leases": {recorded(world{slower: server}, normal.callers(1, 0.4), 10), TooFewLeases},
		"a few holds": {
			recorded(world{slower: steady}, loadOf{rate: poisson(1000), work: constant(0.5)}.callers(1, 4), 0), TooShort,
		},
		"hardly any load": {
			recorded(world{slower: server}, loadOf{rate: poisson(20), work: exponential(0.01)}.callers(1, 60), 10), LoadTooLow,
		},
		"one after the other": {recorded(world{slower: server}, regularly(0.02, 0.01, 60), 10), LoadTooLow},
		"a load that grows": {
			recorded(world{slower: server}, loadOf{rate: between(200, 700, 30), work: exponential(0.01)}.callers(1, 30), 20), LoadChanges,
		},
		"a load that falls": {
			recorded(world{slower: server}, loadOf{rate: between(700, 200, 30), work: exponential(0.01)}.callers(1, 30), 20), LoadChanges,
		},
		"one short burst": {
			recorded(world{slower: server}, loadOf{rate: once(150, 1500, 15, 15.5), work: exponential(0.01)}.callers(1, 30), 20), FewBursts,
		},
		"more than it can do": {
			ended(recorded(world{slower: server}, loadOf{rate: poisson(2000), work: exponential(0.01)}.callers(1, 20), 10), 20*time.Second), Overload,
		},
		"callers who ask again at once": {
			recorded(world{slower: server, again: until(20, 0)}, together(40, exponential(0.01)), 10), ClosedLoop,
		},
		"a limit far too low": {
			recorded(world{slower: gunther(0.01, 0)}, loadOf{rate: bursts(300, 1500, 1, 0.1), work: exponential(0.01)}.callers(1, 60), 6), TooFar,
		},
		"callers who gave up": {impatient(recorded(world{slower: server}, normal.callers(1, 20), 7), 10*ms), GaveUp},
	} {
		t.Run(name, func(t *testing.T) {
			a := Advise(c.recording, goal)
			assert.Equal(t, c.want, a.Refused, "%+v", a)
			assert.Zero(t, a.Limit)
		})
	}
}

// regularly come callers of equal work, at equal distances.
func regularly(every, work, long float64) (all []caller) {
	for at := every; at < long; at += every {
		all = append(all, caller{at: at, work: work})
	}
	return all
}

// between is a rate that changes evenly.
func between(from, to, long float64) func(*rand.Rand, float64) float64 {
	return func(_ *rand.Rand, now float64) float64 { return from + (to-from)*now/long }
}

// once is a rate that is high for a while.
func once(calm, burst, from, to float64) func(*rand.Rand, float64) float64 {
	return func(_ *rand.Rand, now float64) float64 {
		if now >= from && now < to {
			return burst
		}
		return calm
	}
}

// together come so many callers.
func together(n int, work func(*rand.Rand) float64) (all []caller) {
	r := rand.New(rand.NewPCG(1, 1))
	for range n {
		all = append(all, caller{work: work(r)})
	}
	return all
}

// until has callers come again, after they thought for a while, up to some time.
func until(end, think float64) func(caller) (caller, bool) {
	r := rand.New(rand.NewPCG(2, 2))
	return func(c caller) (caller, bool) {
		c.at += think * r.ExpFloat64()
		c.work = 0.01 * r.ExpFloat64()
		return c, c.at < end
	}
}

// impatient has those give up who wait for too long. What they would have done stays undone.
func impatient(r Recording, patience time.Duration) Recording {
	for i := range r.Leases {
		if l := &r.Leases[i]; l.Acquired-l.Arrived > patience {
			l.Failed, l.Ended, l.Acquired = true, l.Arrived+patience, 0
		}
	}
	return r
}

// ended is what of a recording has ended by then.
func ended(r Recording, by time.Duration) Recording {
	r.Leases = slices.DeleteFunc(r.Leases, func(l Lease) bool { return l.Ended > by })
	return r
}

func TestALimitThatIsWorthATryIsNoneThatCanDeadlock(t *testing.T) {
	of := recorded(world{slower: gunther(0.01, 0)}, loadOf{rate: bursts(300, 1500, 1, 0.1), work: exponential(0.01)}.callers(1, 60), 6)
	for _, c := range []struct{ floor, ceiling, try int }{{0, 0, 12}, {40, 0, 40}, {40, 20, 20}, {0, 8, 8}} {
		of.Floor, of.Ceiling = c.floor, c.ceiling
		a := Advise(of, Goal{Wait: 10 * time.Millisecond})
		assert.Equal(t, TooFar, a.Refused)
		assert.Equal(t, c.try, a.Try, "%+v", c)
	}
}
