package advisor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// steady is a server that does not slow down.
func steady(int) float64 { return 1 }

// recorded is a recording of callers at a limit.
func recorded(w world, callers []caller, limit int) Recording {
	w.limit = limit
	return Recording{Leases: w.simulate(callers), Limit: limit}
}

func TestAReplayOfTheRecordedLimitHasTheRecordedWaits(t *testing.T) {
	for name, load := range map[string]loadOf{
		"exponential": {rate: poisson(900), work: exponential(0.01)},
		"constant":    {rate: poisson(950), work: constant(0.01)},
		"long tail":   {rate: poisson(700), work: pareto(0.01, 1.5)},
		"unused":      {rate: poisson(400), work: exponential(0.01), fixed: exponential(0.01)},
		"too much":    {rate: poisson(1500), work: exponential(0.01)},
	} {
		t.Run(name, func(t *testing.T) {
			recording := recorded(world{slower: steady}, load.callers(1, 10), 10)
			l := newLoad(recording)
			r := newReplay(l)
			r.run(10, law{}, l.work(law{}))
			for i := range l.items {
				require.Equal(t, l.items[i].wait(), r.waits[i], "of the caller %d", i)
			}
		})
	}
}

func TestWithALawAReplayOfTheRecordedLimitIsNearTheRecording(t *testing.T) {
	load := loadOf{rate: poisson(500), work: exponential(0.01)}
	recording := recorded(world{slower: gunther(0.05, 0.001)}, load.callers(1, 10), 10)
	l := newLoad(recording)
	r := newReplay(l)
	by := law{1, 0.05, 0.001}
	r.run(10, by, l.work(by))
	for i := range l.items {
		require.InDelta(t, l.items[i].wait(), r.waits[i], 1e3, "of the caller %d, in ns", i)
	}
}

func TestWithoutSlowdownNobodyWaitsLongerAtALargerLimit(t *testing.T) {
	for seed := range uint64(20) {
		load := loadOf{rate: poisson(900), work: lognormal(0.01, 1.5), fixed: exponential(0.002)}
		l := newLoad(recorded(world{slower: steady}, load.callers(seed, 2), 12))
		r := newReplay(l)
		var before []float64
		for limit := 1; limit < 40; limit++ {
			r.run(limit, law{}, l.work(law{}))
			for i, wait := range r.waits {
				require.True(t, before == nil || wait <= before[i], "caller %d at %d", i, limit)
			}
			before = slices.Clone(r.waits)
		}
	}
}

func TestAFasterClockChangesNothing(t *testing.T) {
	load := loadOf{rate: poisson(500), work: exponential(0.01), fixed: exponential(0.002)}
	recording := recorded(world{slower: gunther(0.05, 0.001)}, load.callers(1, 20), 12)
	want := Advise(recording, Goal{})
	require.Empty(t, want.Refused)
	for _, by := range []time.Duration{2, 10, 1000} {
		longer := recording
		longer.Leases = nil
		for _, l := range recording.Leases {
			l.Arrived, l.Acquired, l.Ended = l.Arrived*by, l.Acquired*by, l.Ended*by
			l.Dial, l.Reset, l.Unused = l.Dial*by, l.Reset*by, l.Unused*by
			longer.Leases = append(longer.Leases, l)
		}
		got := Advise(longer, Goal{})
		assert.Equal(t, []int{want.Limit, want.Low, want.High, want.Collapse}, []int{got.Limit, got.Low, got.High, got.Collapse}, "%d times", by)
	}
}

func TestTheOrderOfLeasesAndTheBeginningDoNotMatter(t *testing.T) {
	load := loadOf{rate: poisson(500), work: exponential(0.01)}
	recording := recorded(world{slower: gunther(0.05, 0.001)}, load.callers(1, 20), 12)
	want := Advise(recording, Goal{})
	other := recording
	other.Leases = slices.Clone(recording.Leases)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(other.Leases), func(i, j int) {
		other.Leases[i], other.Leases[j] = other.Leases[j], other.Leases[i]
	})
	for i := range other.Leases {
		l := &other.Leases[i]
		l.Arrived, l.Acquired, l.Ended = l.Arrived+time.Hour, l.Acquired+time.Hour, l.Ended+time.Hour
	}
	assert.Equal(t, want, Advise(other, Goal{}))
}

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
