//go:build !race

// Nothing here happens at once, and the race detector would take minutes for it.

package advisor

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// scenes are loads and servers of which the truth is known by simulation.
var scenes = []struct {
	name   string
	server func(n int) float64
	load   loadOf
	goal   Goal
	limits []int // that are recorded
}{
	{"no slowdown", steady, loadOf{rate: poisson(1000), work: exponential(0.01)}, Goal{Wait: 10 * time.Millisecond}, []int{13, 40}},
	{"constant work", steady, loadOf{rate: poisson(1000), work: constant(0.01)}, Goal{Wait: 5 * time.Millisecond}, []int{12, 40}},
	{"bursts", steady, loadOf{rate: bursts(500, 2000, 1, 0.25), work: exponential(0.01)}, Goal{Wait: 10 * time.Millisecond}, []int{18, 60}},
	{"long tail", steady, loadOf{rate: poisson(1000), work: lognormal(0.01, 1.5)}, Goal{Wait: 10 * time.Millisecond}, []int{14, 50}},
	{"Pareto", steady, loadOf{rate: poisson(1000), work: pareto(0.01, 1.6)}, Goal{Wait: 10 * time.Millisecond}, []int{15, 60}},
	{"two kinds", steady, loadOf{rate: poisson(1000), work: either(0.002, 0.1, 0.08)}, Goal{Wait: 10 * time.Millisecond}, []int{14, 50}},
	{"contention", gunther(0.03, 0), loadOf{rate: poisson(600), work: exponential(0.01)}, Goal{Wait: 10 * time.Millisecond}, []int{9, 30}},
	{"collapse", gunther(0.02, 0.002), loadOf{rate: poisson(700), work: exponential(0.01)}, Goal{Wait: 10 * time.Millisecond}, []int{11, 30}},
	{"collapse in bursts", gunther(0.02, 0.002), loadOf{rate: bursts(300, 1000, 1, 0.2), work: exponential(0.01)}, Goal{Wait: 50 * time.Millisecond}, []int{10, 40}},
	{"eight cores", cores(8, 0.01), loadOf{rate: poisson(1000), work: exponential(0.006)}, Goal{Wait: 25 * time.Millisecond}, []int{8, 40}},
	{"in the caller's hands", gunther(0.03, 0.001), loadOf{rate: poisson(400), work: exponential(0.01), fixed: exponential(0.02)}, Goal{Wait: 10 * time.Millisecond}, []int{15, 60}},
}

// The limits that are simulated. Neighbours are a step apart.
var simulated = []int{4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 22, 24, 27, 30, 36, 45}

func step(limit int) int {
	k, _ := slices.BinarySearch(simulated, limit)
	return k
}

func TestAdviceIsTheTruthOfASimulation(t *testing.T) {
	right, asked := 0, 0
	for _, s := range scenes {
		w := world{slower: s.server}
		best, collapse := measure(w, s.load.callers(99, 20), s.goal, simulated).best(s.goal)
		for _, limit := range s.limits {
			a := Advise(recorded(w, s.load.callers(7, 15), limit), s.goal)
			said := fmt.Sprintf("%s, recorded at %d: truth %d, collapse %d; advice %d (%d to %d), collapse %d, slowdown %.2f at %d, %q",
				s.name, limit, best, collapse, a.Limit, a.Low, a.High, a.Collapse, a.Slowdown, a.Seen, a.Refused)
			t.Log(said)
			assert.True(t, collapse == 0 || a.Limit < collapse, said)
			asked++
			if a.Refused == "" && (a.Low <= best && best <= a.High || max(step(best)-step(a.Limit), step(a.Limit)-step(best)) <= 1) {
				right++
			}
		}
	}
	assert.GreaterOrEqual(t, 10*right, 9*asked, "%d of %d are right", right, asked)
}
