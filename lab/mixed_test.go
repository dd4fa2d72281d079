package lab

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/drawing"
)

// Most work is short, and some is long.
const (
	shortWork = 2 * ms
	longWork  = 500 * ms
	longShare = 0.05
)

// division says how ten connections are divided between short and long work.
type division struct {
	name string
	variant
	shorts int // connections of a pool for short work; 0: there is one pool for all
}

func together(v variant) division {
	return division{name: "one pool, " + v.name, variant: v}
}

func apart(shorts int) division {
	return division{name: fmt.Sprintf("two pools: %d for short work, %d for long", shorts, poolSize-shorts), variant: plain, shorts: shorts}
}

func laned(longs int) division {
	v := variant{cfg: sqllease.Config{Lanes: map[string]sqllease.Lane{"long": {Max: longs}}}}
	return division{name: fmt.Sprintf("one pool, `\"long\": {Max: %d}`", longs), variant: v}
}

// waits are what callers of one kind saw: the response is as much more as their work takes.
type waits struct{ p50, p99, p999 time.Duration }

// play plays short and long work that keeps so much of the pool busy.
func (d division) play(t *testing.T, busy float64, seed uint64, long time.Duration) (s, l []fate) {
	synctest.Test(t, func(t *testing.T) {
		server := &server{slower: quick, dial: dialTime}
		limit := poolSize - d.shorts
		db, end := d.open(t, server, limit)
		defer end()
		quickly := db
		if d.shorts > 0 {
			quickly, end = d.open(t, server, d.shorts)
			defer end()
		}
		r := rand.New(rand.NewPCG(seed, 2006))
		hold := (1-longShare)*shortWork.Seconds() + longShare*longWork.Seconds()
		come := poisson(busy*poolSize/hold)(r, long)
		longs := make([]bool, len(come))
		fates := crowd(come, func(i int) (caller, *sql.DB) {
			if longs[i] = r.Float64() < longShare; longs[i] {
				return caller{job: job{work: longWork}, lane: "long"}, db
			}
			return caller{job: job{work: shortWork}}, quickly
		})
		for i, f := range fates {
			if longs[i] {
				l = append(l, f)
			} else {
				s = append(s, f)
			}
		}
	})
	return s, l
}

// measure plays them several times.
func (d division) measure(t *testing.T, busy float64, long time.Duration, seeds []uint64) (short, longer waits) {
	var s, l []fate
	for _, seed := range seeds {
		a, b := d.play(t, busy, seed, long)
		s, l = append(s, a...), append(l, b...)
	}
	return waitsOf(s, shortWork), waitsOf(l, longWork)
}

func waitsOf(fates []fate, work time.Duration) waits {
	took := responses(fates, wasServed)
	wait := func(p float64) time.Duration { return max(percentile(took, p)-work, 0).Round(10 * time.Microsecond) }
	return waits{wait(50), wait(99), wait(99.9)}
}

// loads keep so much of the pool busy.
var loads = []struct {
	busy   float64
	splits []int // for short work, such that long work is served
}{{0.6, []int{1, 2, 3, 4}}, {0.8, []int{1, 2}}, {0.9, []int{1}}}

// divisions are those that are compared at a load.
func divisions(splits []int) []division {
	all := []division{together(alone), together(plain)}
	for _, n := range splits {
		all = append(all, apart(n))
	}
	for _, n := range splits {
		all = append(all, laned(poolSize-n))
	}
	return all
}

const tableOfWaits = "| ten connections | short work: 99 of 100 | 999 of 1000 | long work: half | 99 of 100 |\n|---|---|---|---|---|\n"

// TestClaimsOfMixedWork compares one pool with two.
func TestClaimsOfMixedWork(t *testing.T) {
	long, seeds, loads := 10*time.Minute, seeds, loads
	if !*write {
		long, seeds, loads = time.Minute, seeds[:1], loads[1:2]
	}
	quick := drawing.Measure{Name: "short work, ms", Format: "%.0f"}
	slow := drawing.Measure{Name: "long work, ms", Format: "%.0f"}
	var groups []string
	for _, load := range loads {
		all := divisions(load.splits)
		shorts, longs := make([]waits, len(all)), make([]waits, len(all))
		t.Run(percent(load.busy), func(t *testing.T) {
			for i, d := range all {
				t.Run(d.name, func(t *testing.T) {
					t.Parallel()
					shorts[i], longs[i] = d.measure(t, load.busy, long, seeds)
				})
			}
		})
		text := tableOfWaits
		for i, d := range all {
			s, l := shorts[i], longs[i]
			text += fmt.Sprintf("| %s | %s | %s | %s | %s |\n", d.name, short(s.p99), short(s.p999), short(l.p50), short(l.p99))
		}
		t.Log("\n" + text)
		one, two, split := 1, 2, 2+len(load.splits) // sqllease in one pool, two pools, and lanes
		for i := range load.splits {
			assert.Less(t, 5*shorts[split+i].p99, shorts[one].p99, "%s: short work is quick", all[split+i].name)
			assert.LessOrEqual(t, shorts[split+i].p99, shorts[two+i].p99, "%s: as quick as with a pool of its own", all[split+i].name)
			assert.InEpsilon(t, float64(longWork+longs[two+i].p99), float64(longWork+longs[split+i].p99), 0.1, "%s: long work has what it has with a pool of its own", all[split+i].name)
		}
		keep(t, overloadPage, mixedBlock(load.busy), text)
		groups = append(groups, percent(load.busy)+" of the pool in use")
		drawn := []int{0, one, two, split} // the first split leaves nine for long work
		quick.Values = append(quick.Values, inMilliseconds(shorts, drawn))
		slow.Values = append(slow.Values, inMilliseconds(longs, drawn))
	}
	if *write {
		drawMixed(t, groups, quick, slow)
	}
}

// mixedBlock is the name of the page's block for a load.
func mixedBlock(busy float64) string { return fmt.Sprintf("mixed %.0f", 100*busy) }
