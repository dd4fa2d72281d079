package advisor

import (
	"testing"
	"time"
)

func BenchmarkAdvise(b *testing.B) {
	for _, c := range []struct {
		name  string
		load  loadOf
		limit int
	}{
		{"ten", loadOf{rate: poisson(600), work: exponential(0.01)}, 20},
		{"hundred", loadOf{rate: poisson(10_000), work: exponential(0.01)}, 200},
	} {
		slower := gunther(0.02, 0.001)
		if c.limit > 100 {
			slower = gunther(0.001, 0)
		}
		recording := recorded(world{slower: slower}, c.load.callers(1, 10_000/c.load.rate(nil, 0)), c.limit)
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				Advise(recording, Goal{Wait: 10 * time.Millisecond})
			}
		})
	}
}
