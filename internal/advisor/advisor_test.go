package advisor

import (
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
	for seed := range uint64(5) {
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
	recording := recorded(world{slower: gunther(0.05, 0.001)}, load.callers(1, 10), 12)
	want := Advise(recording, Goal{})
	require.Empty(t, want.Refused)
	for _, by := range []time.Duration{7, 1000} {
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
	recording := recorded(world{slower: gunther(0.05, 0.001)}, load.callers(1, 10), 12)
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
