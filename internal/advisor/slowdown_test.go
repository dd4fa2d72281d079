package advisor

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTheSlowdownOfAServerIsFound(t *testing.T) {
	for name, work := range map[string]loadOf{
		"constant":    {work: constant(0.01)},
		"exponential": {work: exponential(0.01)},
		"lognormal":   {work: lognormal(0.01, 1.5)},
		"Pareto":      {work: pareto(0.01, 1.7)},
		"two kinds":   {work: either(0.003, 0.1, 0.07)},
	} {
		for server, slower := range map[string]func(int) float64{
			"none": steady, "contention": gunther(0.03, 0), "collapse": gunther(0.01, 0.0005), "cores": cores(11, 0.01),
		} {
			t.Run(server+", "+name, func(t *testing.T) {
				work.rate = poisson(800)
				l := newLoad(recorded(world{slower: slower}, work.callers(3, 12), 25))
				by, known := newFitter(l).fit()
				require.True(t, known)
				got := ""
				for _, n := range []int{4, 8, 12, 16, 20} {
					got += fmt.Sprintf("%d: %.2f (%.2f) ", n, by.slowdown(float64(n)), slower(n))
				}
				t.Log(by, l.seen(), got)
				n := min(l.seen(), 20)
				assert.InEpsilon(t, slower(n), by.slowdown(float64(n)), 0.25, "with %d", n)
			})
		}
	}
}

// Six calls are on their way on average, to a server with eight cores. With more than 40 connections it
// gets less done than that, so a pool that is full stays full.
func TestAPoolThatWouldNotRecoverIsSeen(t *testing.T) {
	load := loadOf{rate: poisson(1000), work: exponential(0.006)}
	l := newLoad(recorded(world{slower: cores(8, 0.01)}, load.callers(1, 10), 20))
	by := law{alone: 8, alpha: 1. / 8, beta: 0.01 / 8}
	list := limits(80)
	k := l.tips(list, by, l.work(by))
	require.Less(t, k, len(list))
	assert.InDelta(t, 41, list[k], 5)
	assert.Equal(t, len(list), l.tips(list, law{}, l.work(law{})), "a server that does not slow down recovers")
}

func TestWhatIsServedWithAllConnections(t *testing.T) {
	assert.InDelta(t, 10/0.01, throughput(10, law{}, 0.01, 0), 1e-6)
	assert.InDelta(t, 10/0.03, throughput(10, law{}, 0.01, 0.02), 1e-6)
	assert.InDelta(t, 10/0.02, throughput(10, law{}, 0, 0.02), 1e-6)
	assert.InDelta(t, 10/(0.01*(1+9*0.1)), throughput(10, law{alone: 1, alpha: 0.1}, 0.01, 0), 1e-6)
}
