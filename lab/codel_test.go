package lab

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// law decides who is served next. It takes callers from the head of the queue: it refuses some, and
// returns the first whom it does not refuse.
type law interface {
	next(now time.Duration, q *line) (came time.Duration, ok bool)
}

// line is a queue of callers, by the times at which they came.
type line struct {
	came    []time.Duration
	refused []time.Duration // how long those had waited
	late    int
}

// pop takes the first. Those whose time is over have gone.
func (q *line) pop(now time.Duration) (came time.Duration, ok bool) {
	for len(q.came) > 0 {
		came, q.came = q.came[0], q.came[1:]
		if now-came < patience {
			return came, true
		}
		q.late++
	}
	return 0, false
}

func (q *line) refuse(now, came time.Duration) { q.refused = append(q.refused, now-came) }

// codel is what RFC 8289 has in section 5: it refuses one, and the next one after the interval divided
// by the square root of how many were refused.
type codel struct {
	target, interval time.Duration
	above, dropNext  time.Duration
	dropping         bool
	count, lastCount int
}

func (c *codel) pop(now time.Duration, q *line) (came time.Duration, ok, drop bool) {
	came, ok = q.pop(now)
	switch {
	case !ok || now-came < c.target:
		c.above = 0
	case c.above == 0:
		c.above = now + c.interval
	default:
		drop = now >= c.above
	}
	return came, ok, drop
}

func (c *codel) after(t time.Duration) time.Duration {
	return t + time.Duration(float64(c.interval)/math.Sqrt(float64(c.count)))
}

func (c *codel) next(now time.Duration, q *line) (time.Duration, bool) {
	came, ok, drop := c.pop(now, q)
	switch {
	case c.dropping && !drop:
		c.dropping = false
	case c.dropping:
		for now >= c.dropNext && c.dropping {
			q.refuse(now, came)
			c.count++
			if came, ok, drop = c.pop(now, q); drop {
				c.dropNext = c.after(c.dropNext)
			} else {
				c.dropping = false
			}
		}
	case drop:
		q.refuse(now, came)
		came, ok, _ = c.pop(now, q)
		c.begin(now)
	}
	return came, ok
}

func (c *codel) begin(now time.Duration) {
	c.dropping = true
	delta := c.count - c.lastCount
	c.count = 1
	if delta > 1 && now-c.dropNext < 16*c.interval {
		c.count = delta
	}
	c.dropNext, c.lastCount = c.after(now), c.count
}

// all refuses all who are over the target, once everybody was for an interval: what the gate does.
type all struct {
	target, interval   time.Duration
	pressed, refusedAt time.Duration
}

func (a *all) next(now time.Duration, q *line) (came time.Duration, ok bool) {
	for {
		came, ok = q.pop(now)
		refuses := a.pressed != 0 && now >= a.pressed
		switch over := ok && now-came >= a.target; {
		case !ok:
			a.pressed = 0
			return came, ok
		case over && a.pressed == 0:
			a.pressed = now + a.interval
			a.refusedAt = a.pressed
			return came, ok
		case over && refuses && len(q.came) > 0:
			a.refusedAt = now
			q.refuse(now, came)
			continue
		case !over && (!refuses || now-a.refusedAt >= a.interval):
			a.pressed = 0
		}
		return came, ok
	}
}

// none refuses nobody.
type none struct{}

func (none) next(now time.Duration, q *line) (time.Duration, bool) { return q.pop(now) }

// obeyed is what a law comes to: the goodput as a share of the capacity, and how long those took who
// were served.
type obeyed struct {
	goodput  float64
	p50, p99 time.Duration
	refused  float64
}

// obey plays 150 % of the capacity to a queue with ten servers, each of which takes 10 ms.
func obey(l law, seed uint64, long time.Duration) obeyed {
	const hold = 10 * ms
	come := poisson(toomuch*capacity)(rand.New(rand.NewPCG(seed, 2006)), long)
	var q line
	var took []time.Duration
	busy := make([]time.Duration, poolSize) // until when
	for i := 0; ; {
		k := slices.Index(busy, slices.Min(busy))
		now := busy[k]
		for ; i < len(come) && come[i] <= now; i++ {
			q.came = append(q.came, come[i])
		}
		came, ok := l.next(now, &q)
		switch {
		case ok && now+hold-came <= patience:
			busy[k] = now + hold
			took = append(took, busy[k]-came)
		case ok: // in vain: the connection is closed, and another is dialed
			busy[k] = came + patience + dialTime
			q.late++
		case i == len(come):
			return obeyed{float64(len(took)) / capacity / long.Seconds(), percentile(took, 50), percentile(took, 99), float64(len(q.refused)) / float64(len(come))}
		default:
			busy[k] = come[i]
		}
	}
}

var laws = []struct {
	name string
	new  func() law
}{
	{"nobody is refused", func() law { return none{} }},
	{"CoDel, 5 ms and 100 ms, as in the RFC", func() law { return &codel{target: 5 * ms, interval: 100 * ms} }},
	{"CoDel, 50 ms and 500 ms", func() law { return &codel{target: 50 * ms, interval: 500 * ms} }},
	{"all over 50 ms, after 500 ms (`QueueTarget: 50ms`)", func() law { return &all{target: 50 * ms, interval: 500 * ms} }},
}

func TestClaimsOfTheLaws(t *testing.T) {
	text := "| law | served in time, of the capacity | half of these within | 99 of 100 within | refused |\n|---|---|---|---|---|\n"
	var goodput []float64
	for _, l := range laws {
		var good, refused []float64
		var p50, p99 []time.Duration
		for _, seed := range seeds {
			o := obey(l.new(), seed, time.Minute)
			good, refused, p50, p99 = append(good, o.goodput), append(refused, o.refused), append(p50, o.p50), append(p99, o.p99)
		}
		goodput = append(goodput, mean(good))
		text += fmt.Sprintf("| %s | %s | %s | %s | %s |\n", l.name, percent(mean(good)), short(mean(p50)), short(mean(p99)), percent(mean(refused)))
	}
	t.Log("\n" + text)
	assert.Less(t, goodput[0], 0.5)
	assert.Less(t, goodput[2], 0.5, "CoDel is too slow for callers who take no notice")
	assert.Greater(t, goodput[3], 0.95)
	keep(t, overloadPage, "laws", text)
}
