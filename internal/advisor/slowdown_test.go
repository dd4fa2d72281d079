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
				l := newLoad(recorded(world{slower: slower}, work.callers(3, 20), 25))
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
