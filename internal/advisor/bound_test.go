package advisor

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAdviceKeepsToFloorAndCeiling(t *testing.T) {
	load := loadOf{rate: poisson(600), work: exponential(0.01)}
	recording := recorded(world{slower: gunther(0.02, 0.001)}, load.callers(1, 8), 20)
	goal := Goal{Wait: 10 * time.Millisecond}
	free := Advise(recording, goal)
	require.Empty(t, free.Refused)
	for name, c := range map[string]struct {
		floor, ceiling, want int
		met                  bool
		refused              Refusal
	}{
		"both are wide":                      {2, 100, free.Limit, true, ""},
		"the server has fewer":               {0, free.Limit - 2, free.Limit - 2, false, ""},
		"nested acquires need more":          {free.Limit + 3, 0, free.Limit + 3, true, ""},
		"they need more than the server has": {free.Limit + 3, free.Limit + 1, 0, false, Conflict},
	} {
		t.Run(name, func(t *testing.T) {
			recording.Floor, recording.Ceiling = c.floor, c.ceiling
			a := Advise(recording, goal)
			assert.Equal(t, c.want, a.Limit)
			assert.Equal(t, c.met, a.Met)
			assert.Equal(t, c.refused, a.Refused)
			sound(t, a)
		})
	}
}

// Connections that never come back are no part of the recording, but they are in use.
func TestConnectionsThatNeverComeBackAreAdded(t *testing.T) {
	load := loadOf{rate: poisson(600), work: exponential(0.01)}
	recording := recorded(world{slower: steady}, load.callers(1, 8), 20)
	goal := Goal{Wait: 10 * time.Millisecond}
	slices.SortStableFunc(recording.Leases, func(a, b Lease) int { return cmp.Compare(a.Arrived, b.Arrived) })
	for i, taken := range newLoad(recording).in.taken {
		recording.Leases[i].InUse = taken + 4
	}
	free := recording
	free.Leases = nil
	for _, lease := range recording.Leases {
		lease.InUse -= 4
		free.Leases = append(free.Leases, lease)
	}
	without, with := Advise(free, goal), Advise(recording, goal)
	assert.Zero(t, without.Held)
	assert.Equal(t, 4, with.Held)
	assert.InDelta(t, without.Limit+4, with.Limit, 1)
}
