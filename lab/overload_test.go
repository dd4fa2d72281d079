package lab

import (
	"cmp"
	"database/sql"
	"fmt"
	"github.com/stretchr/testify/assert"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqllease/sqllease"
)

// flood is a load that is too much for a while: a pool of ten connections whose work takes 10 ms
// serves 1,000 callers in a second.
type flood struct {
	name     string
	slower   func(n int) float64
	work     lengths
	attempts int           // how often a caller tries, at once when the last attempt failed; 0: once
	calls    int           // how often a caller takes a connection, one after the other; 0: once
	each     time.Duration // how long each of the three parts lasts
}

// The parts of a flood, as shares of the capacity.
const (
	capacity = 1000.0
	calm     = 0.8
	toomuch  = 1.5
	patience = time.Second
)

// slowing is a server on which ten calls at once take as long as the work would alone, times this.
var slowing = gunther(0.02, 0.002)

var floods = []flood{
	{name: "all calls take 10 ms", slower: quick, work: constant(10 * ms)},
	{name: "10 ms on average", slower: quick, work: exponential(10 * ms)},
	{name: "a server that gets slower", slower: slowing, work: constant(time.Duration(float64(10*ms) / slowing(poolSize)))},
	{name: "callers try again at once", slower: quick, work: constant(10 * ms), attempts: 4},
	{name: "a request takes five connections", slower: quick, work: constant(2 * ms), calls: 5},
}

func targeted(d time.Duration) variant {
	return variant{name: fmt.Sprintf("`QueueTarget` %v", d), cfg: sqllease.Config{QueueTarget: d}}
}

func crowded(n int) variant {
	return variant{name: fmt.Sprintf("`MaxWaiting` %d", n), cfg: sqllease.Config{MaxWaiting: n}}
}

var plain = variant{name: "sqllease"}

var controls = []variant{
	alone,
	plain,
	{name: "`AcquireTimeout` 200ms", cfg: sqllease.Config{AcquireTimeout: 200 * ms}},
	crowded(50), crowded(200), crowded(1000),
	targeted(50 * ms),
	{name: "`QueueTarget` 50ms, `MaxWaiting` 1000", cfg: sqllease.Config{QueueTarget: 50 * ms, MaxWaiting: 1000}},
}

// flooded is what was measured of a flood.
type flooded struct {
	goodput  float64 // in the middle part, as a share of the capacity
	p50, p99 time.Duration
	refused  float64 // of those who came in the middle part
	late     float64
	after    float64       // of those who came two seconds after it, or later: refused or late
	recovery time.Duration // -1: it does not recover
	early    float64       // of those who came before it: refused or late
	seconds  []float64     // served in each second
	slow     []float64     // 99 of 100 of those who came in each second were served within so many milliseconds
}

func (f flood) play(t *testing.T, v variant, seed uint64) (out flooded) {
	synctest.Test(t, func(t *testing.T) {
		db, end := v.open(t, &server{slower: f.slower, dial: dialTime}, poolSize)
		defer end()
		r := rand.New(rand.NewPCG(seed, 2006))
		come := inParts(f.each, calm*capacity, toomuch*capacity, calm*capacity)(r, 3*f.each)
		fates := crowd(come, func(int) (caller, *sql.DB) {
			return caller{job: job{work: f.work(r)}, patience: patience, attempts: f.attempts, calls: f.calls}, db
		})
		out = f.measure(fates)
	})
	return out
}

// inParts lets them come at random, at one rate after the other.
func inParts(each time.Duration, rates ...float64) arrivals {
	return varying(func(*rand.Rand) func(float64) float64 {
		return func(now float64) float64 { return rates[min(int(now/each.Seconds()), len(rates)-1)] }
	})
}

// tried plays a flood several times.
func (f flood) tried(t *testing.T, v variant, seeds []uint64) (all []flooded) {
	for _, seed := range seeds {
		all = append(all, f.play(t, v, seed))
	}
	return all
}

// of is the mean of a figure.
func of[T float64 | time.Duration](all []flooded, figure func(flooded) T) T {
	var figures []T
	for _, o := range all {
		figures = append(figures, figure(o))
	}
	return mean(figures)
}

// least is the least goodput.
func least(all []flooded) float64 {
	return slices.MinFunc(all, func(a, b flooded) int { return cmp.Compare(a.goodput, b.goodput) }).goodput
}

// row is a flood in its table.
func row(name string, all []flooded) string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |\n", name,
		percent(of(all, func(o flooded) float64 { return o.goodput })),
		short(of(all, func(o flooded) time.Duration { return o.p50 })),
		short(of(all, func(o flooded) time.Duration { return o.p99 })),
		percent(of(all, func(o flooded) float64 { return o.refused })),
		percent(of(all, func(o flooded) float64 { return o.late })), normalAfter(all))
}

// normalAfter is how long it takes on average until all is as before.
func normalAfter(all []flooded) string {
	if slices.ContainsFunc(all, func(o flooded) bool { return o.recovery < 0 }) {
		return "never"
	}
	return fmt.Sprintf("%.0f s", of(all, func(o flooded) time.Duration { return o.recovery }).Seconds())
}

// cell is a flood in the table of all floods.
func cell(all []flooded) string {
	text := percent(of(all, func(o flooded) float64 { return o.goodput }))
	if normalAfter(all) == "never" {
		text += ", and never again as before"
	}
	return text
}

const tableOfFloods = "| pool | served in time | half of these within | 99 of 100 within | refused | late | as before after |\n|---|---|---|---|---|---|---|\n"

// TestClaimsOfOverload has more callers come than a pool can serve, for a while.
func TestClaimsOfOverload(t *testing.T) {
	each, seeds, floods, controls := time.Minute, seeds[:2], floods, controls
	if !*write {
		each, seeds, floods, controls = 6*time.Second, seeds[:1], floods[:4], []variant{targeted(50 * ms)}
	}
	outcomes := make([][][]flooded, len(floods)) // of each flood, and each pool
	t.Run("floods", func(t *testing.T) {
		for i, f := range floods {
			f.each = each
			outcomes[i] = make([][]flooded, len(controls))
			for k, v := range controls {
				t.Run(f.name+", "+v.name, func(t *testing.T) {
					t.Parallel()
					outcomes[i][k] = f.tried(t, v, seeds)
					t.Log("\n" + tableOfFloods + row(v.name, outcomes[i][k]))
					if v.cfg.QueueTarget > 0 {
						f.check(t, outcomes[i][k])
					}
				})
			}
		}
	})
	if *write {
		writeFloods(t, outcomes)
	}
}

// writeFloods writes the tables and the pictures.
func writeFloods(t *testing.T, outcomes [][][]flooded) {
	constant, loads := tableOfFloods, "| pool |"
	for _, f := range floods {
		loads += " " + f.name + " |"
	}
	loads += "\n|---|---|---|---|---|---|\n"
	for k, v := range controls {
		constant += row(v.name, outcomes[0][k])
		loads += "| " + v.name + " |"
		for i := range floods {
			loads += " " + cell(outcomes[i][k]) + " |"
		}
		loads += "\n"
	}
	keep(t, overloadPage, "overload", constant)
	keep(t, overloadPage, "overload by load", loads)
	drawFlood(t, outcomes[0])
}

// check is what docs/overload.md says of QueueTarget. It does not say it of callers who need several
// connections.
func (f flood) check(t *testing.T, all []flooded) {
	if f.calls == 0 {
		assert.GreaterOrEqual(t, least(all), 0.9)
	}
	for _, o := range all {
		assert.Zero(t, o.early+o.after, "nobody is refused before or after")
		assert.GreaterOrEqual(t, o.recovery, time.Duration(0))
		assert.LessOrEqual(t, o.recovery, 2*time.Second)
	}
}

// measure works out the figures.
func (f flood) measure(fates []fate) (out flooded) {
	before := within(fates, 0, f.each)
	middle := within(fates, f.each, 2*f.each)
	out.p50 = percentile(responses(middle, wasServed), 50)
	out.p99 = percentile(responses(middle, wasServed), 99)
	out.refused = share(middle, func(f fate) bool { return f.end == refused })
	out.late = share(middle, func(f fate) bool { return f.end == late })
	out.early = share(before, wasNotServed)
	out.after = share(within(fates, 2*f.each+2*time.Second, 3*f.each), wasNotServed)
	out.seconds = make([]float64, int(3*f.each/time.Second)+5)
	for _, f := range fates {
		if f.end == served {
			out.seconds[min(int(f.gone/time.Second), len(out.seconds)-1)]++
		}
	}
	for at := time.Duration(0); at < 3*f.each; at += time.Second {
		p99 := percentile(responses(within(fates, at, at+time.Second), wasServed), 99)
		out.slow = append(out.slow, p99.Seconds()*1000)
	}
	from, to := int(f.each/time.Second), int(2*f.each/time.Second)
	out.goodput = sum(out.seconds[from:to]) / capacity / f.each.Seconds()
	out.recovery = f.recovery(fates)
	return out
}

// recovery is how long after the flood the first second begins of which all callers were served,
// and 99 of 100 within what that took at most in the seconds before the flood; -1: there is none.
func (f flood) recovery(fates []fate) time.Duration {
	var normal time.Duration
	for at := time.Duration(0); at < f.each; at += time.Second {
		normal = max(normal, percentile(responses(within(fates, at, at+time.Second), wasServed), 99))
	}
	for at := 2 * f.each; at < 3*f.each; at += time.Second {
		all := within(fates, at, at+time.Second)
		if share(all, wasNotServed) == 0 && percentile(responses(all, wasServed), 99) <= normal {
			return at - 2*f.each
		}
	}
	return -1
}

// within are those who came then. They are in the order in which they came.
func within(fates []fate, from, to time.Duration) []fate {
	first := sort.Search(len(fates), func(i int) bool { return fates[i].came >= from })
	last := sort.Search(len(fates), func(i int) bool { return fates[i].came >= to })
	return fates[first:last]
}

func wasServed(f fate) bool    { return f.end == served }
func wasNotServed(f fate) bool { return f.end != served }

// share is of how many of all it is true.
func share(fates []fate, of func(fate) bool) (part float64) {
	for _, f := range fates {
		if of(f) {
			part += 1 / float64(len(fates))
		}
	}
	return part
}

func sum(all []float64) (total float64) {
	for _, v := range all {
		total += v
	}
	return total
}
