package lab

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// good is a load that a pool of ten connections can serve, although callers wait at times.
type good struct {
	name string
	come arrivals
	work lengths
	some bool          // some may be refused
	each time.Duration // the figures are of those who come together, so often; 0: of all
}

var goodTimes = []good{
	{name: "95 % of the pool in use, all calls take 10 ms", come: poisson(0.95 * capacity), work: constant(10 * ms)},
	{name: "95 % of the pool in use, calls take 10 ms on average", come: poisson(0.95 * capacity), work: exponential(10 * ms), some: true},
	{name: "half of the pool in use, and 200 come at once: of these", come: crowds(0.5*capacity, 200, 5*time.Second), work: constant(10 * ms), each: 5 * time.Second},
	{name: "nobody, and 300 come at once", come: crowds(0, 300, 5*time.Second), work: constant(10 * ms)},
}

// most is how many per cent of all may be refused.
func (g good) most() float64 {
	if g.some {
		return 1
	}
	return 0
}

// crowds are many who come at once, again and again, beside those who come at random.
func crowds(rate float64, many int, every time.Duration) arrivals {
	return func(r *rand.Rand, long time.Duration) (all []time.Duration) {
		if rate > 0 {
			all = poisson(rate)(r, long)
		}
		for at := every; at < long; at += every {
			all = append(all, slices.Repeat([]time.Duration{at}, many)...)
		}
		slices.Sort(all)
		return all
	}
}

// refuses is which share of all is not served.
func (g good) refuses(t *testing.T, v variant, seed uint64, long time.Duration) (part float64) {
	synctest.Test(t, func(t *testing.T) {
		db, end := v.open(t, &server{slower: quick, dial: dialTime}, poolSize)
		defer end()
		r := rand.New(rand.NewPCG(seed, 2006))
		fates := crowd(g.come(r, long), func(int) (caller, *sql.DB) {
			return caller{job: job{work: g.work(r)}, patience: patience}, db
		})
		if g.each > 0 {
			fates = slices.DeleteFunc(fates, func(f fate) bool { return f.came%g.each != 0 })
		}
		part = share(fates, wasNotServed)
	})
	return part
}

// TestClaimsOfGoodTimes has callers wait who are not to be refused.
func TestClaimsOfGoodTimes(t *testing.T) {
	long, seeds, pools := 3*time.Minute, seeds, []variant{targeted(50 * ms), crowded(50), crowded(200), crowded(1000)}
	if !*write {
		long, seeds, pools = 16*time.Second, seeds[:1], pools[:1]
	}
	parts := make([][]float64, len(goodTimes))
	t.Run("loads", func(t *testing.T) {
		for i, g := range goodTimes {
			t.Run(g.name, func(t *testing.T) {
				t.Parallel()
				for _, v := range pools {
					var all []float64
					for _, seed := range seeds {
						all = append(all, g.refuses(t, v, seed, long))
					}
					parts[i] = append(parts[i], mean(all))
				}
			})
		}
	})
	text := "| refused or late |"
	for _, v := range pools {
		text += " " + v.name + " |"
	}
	text += "\n|---|---|---|---|---|\n"
	for i, g := range goodTimes {
		text += "| " + g.name + " |"
		for _, part := range parts[i] {
			text += " " + percent(part) + " |"
		}
		text += "\n"
		assert.LessOrEqual(t, 100*parts[i][0], g.most(), g.name)
	}
	t.Log("\n" + text)
	keep(t, overloadPage, "good times", text)
}

// targets tries other targets.
func targets(t *testing.T) string {
	f := floods[1]
	f.each = time.Minute
	tried := []time.Duration{10 * ms, 20 * ms, 50 * ms, 100 * ms, 200 * ms}
	rows := make([]string, len(tried))
	t.Run("targets", func(t *testing.T) {
		for i, target := range tried {
			t.Run(target.String(), func(t *testing.T) {
				t.Parallel()
				v := targeted(target)
				all := f.tried(t, v, seeds)
				var busy, burst []float64
				for _, seed := range seeds {
					busy = append(busy, goodTimes[1].refuses(t, v, seed, 3*time.Minute))
					burst = append(burst, goodTimes[2].refuses(t, v, seed, time.Minute))
				}
				rows[i] = fmt.Sprintf("| %v | %s | %s | %s | %s | %s |\n", target, percent(of(all, func(o flooded) float64 { return o.goodput })),
					short(of(all, func(o flooded) time.Duration { return o.p50 })), short(of(all, func(o flooded) time.Duration { return o.p99 })),
					percent(mean(busy)), percent(mean(burst)))
			})
		}
	})
	text := "| `QueueTarget` | served in time, at 150 % | half of these within | 99 of 100 within | refused at 95 % | refused of 200 at once |\n|---|---|---|---|---|---|\n"
	for _, row := range rows {
		text += row
	}
	return text
}

// TestTargetsThatOneMayChoose writes the table of targets. Nothing of it is claimed.
func TestTargetsThatOneMayChoose(t *testing.T) {
	if *write {
		text := targets(t)
		t.Log("\n" + text)
		keep(t, overloadPage, "targets", text)
	}
}
