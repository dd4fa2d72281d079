package gate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// lifeOf is a life of an hour from now on.
func lifeOf(now clock.Instant, jitter, chance float64) Life {
	return Life{End: now.Add(time.Hour), Jitter: jitter, Chance: chance}
}

func TestASessionAloneEndsWithinItsJitter(t *testing.T) {
	now := clock.Now()
	some := []time.Duration{1, time.Millisecond, time.Minute, 8 * time.Hour, math.MaxInt64 - time.Duration(now)}
	for _, whole := range some {
		for _, jitter := range []float64{0, 0.025, 0.3, 0.5} {
			before := clock.Instant(math.MaxInt64)
			for _, chance := range []float64{0, 0.001, 0.5, 0.999999} {
				g, _ := newGate(0, 0)
				s := heldWith(t, g, Life{End: now.Add(whole), Idle: time.Hour, Jitter: jitter, Chance: chance}, now)
				at := fmt.Sprintf("%v, jitter %v, chance %v", whole, jitter, chance)
				assert.LessOrEqual(t, s.life.End, before, "%s: it only subtracts", at)
				assert.InDelta(t, float64(whole)*(1-jitter*chance), float64(s.life.End.Sub(now)), 1+float64(whole)/1e12, at)
				assert.Equal(t, time.Hour, s.life.Idle)
				before = s.life.End
			}
			assert.LessOrEqual(t, before, now.Add(whole))
		}
	}
	g, _ := newGate(0, 0)
	assert.Zero(t, heldWith(t, g, Life{Jitter: 0.5, Chance: 0.5}, now).life.End, "no end stays none")
	assert.Equal(t, now, heldWith(t, g, Life{End: now, Jitter: 0.5, Chance: 0.5}, now).life.End, "it is over already")
}

// endsIn counts the sessions that end in each tenth of an hour from now.
func endsIn(g *Gate[conn, caller], now clock.Instant) (ends [10]int) {
	count := func(s *Session[conn]) bool {
		ends[min(int(s.life.End.Sub(now)*10/time.Hour), 9)]++
		return true
	}
	g.held.each(count)
	g.ready.each(count)
	return ends
}

func TestNoMoreThanATenthEndInTheSameTenth(t *testing.T) {
	for _, n := range []int{1, 2, 9, 10, 11, 60, 61, 100} {
		for _, jitter := range []float64{0, 0.025, 0.25, 0.5} {
			now := clock.Now()
			g, _ := newGate(0, 0)
			r := rand.New(rand.NewPCG(uint64(n), 1))
			dialers(t, g, n)
			for range n {
				if s := dialed(g, lifeOf(now, jitter, r.Float64()), now); r.IntN(2) == 0 { // held or ready, it counts
					g.Return(&Ticket[conn]{}, &s.Session, false, now)
				}
			}
			for i, ends := range endsIn(g, now) {
				assert.LessOrEqual(t, ends, (n+9)/10, "of %d, in tenth %d, jitter %v", n, i, jitter)
			}
		}
	}
}

func TestASessionEndsInTheLatestTenthThatHasRoom(t *testing.T) {
	now := clock.Now()
	g, _ := newGate(0, 0)
	end := func(chance float64) float64 {
		return float64(heldWith(t, g, lifeOf(now, 0.1, chance), now).life.End.Sub(now)) / float64(time.Hour)
	}
	assert.InDelta(t, 0.95, end(0.5), 1e-9)
	assert.InDelta(t, 0.85, end(0.5), 1e-9, "one of two: anywhere in the tenth before")
	assert.InDelta(t, 0.72, end(0.2), 1e-9)
	s := heldAt(t, g, now) // without an end
	assert.InDelta(t, 0.6, end(0), 1e-9)
	g.Condemn(&s.Session, Bad, now)
	g.Flush(time.Minute, now) // now they end in the first tenth
	assert.InDelta(t, 0.95, end(0.5), 1e-9)
	long := heldWith(t, g, Life{End: now.Add(100 * time.Hour)}, now)
	assert.Equal(t, now.Add(100*time.Hour), long.life.End)
	assert.InDelta(t, 0.8, end(0), 1e-9, "of what lives longer, nothing counts")
	// A jitter of more than a tenth may choose an earlier one; if that is full, a later will do.
	wide := heldWith(t, g, Life{End: now.Add(time.Hour), Jitter: 0.5, Chance: 0.35}, now)
	assert.InDelta(t, 0.735, float64(wide.life.End.Sub(now))/float64(time.Hour), 1e-9, "0.825 is in the tenth that has one")
}

// Sessions that are held beyond their end are of the past.
func TestWhatIsOverIsNotCounted(t *testing.T) {
	now := clock.Now()
	g, _ := newGate(0, 0)
	for range 5 {
		heldWith(t, g, Life{End: now.Add(time.Second)}, now)
	}
	later := now.Add(time.Minute)
	s := heldWith(t, g, lifeOf(later, 0, 0), later)
	assert.Equal(t, later.Add(time.Hour), s.life.End)
	require.Equal(t, 6, figures(g).Held)
}

// A pool is opened before its server was asked: what is told then ends sessions that had no
// end, or a later one.
func TestEndsThatComeNearerAreSpreadAnew(t *testing.T) {
	for name, end := range map[string]time.Duration{"they had none": 0, "they had later ones": 100 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			now := clock.Now()
			g, _ := newGate(0, 0)
			r := rand.New(rand.NewPCG(1, 1))
			life := Life{}
			if end > 0 {
				life.End = now.Add(end)
			}
			dialers(t, g, 60)
			for i := range 60 {
				if s := dialed(g, life, now); i%2 == 0 {
					g.Return(&Ticket[conn]{}, &s.Session, false, now)
				}
			}
			g.ShortenAll(func(*conn) Life { return lifeOf(now, 0.025, r.Float64()) }, now)
			assert.Equal(t, [10]int{6, 6, 6, 6, 6, 6, 6, 6, 6, 6}, endsIn(g, now))
			ends := endsIn(g, now)
			g.ShortenAll(func(*conn) Life { return lifeOf(now.Add(time.Minute), 0.025, r.Float64()) }, now)
			assert.Equal(t, ends, endsIn(g, now), "a life that is shorter stays")

			// Where all are to end at once there is nothing to spread.
			g.ShortenAll(func(*conn) Life { return Life{End: now.Add(time.Minute)} }, now.Add(time.Minute))
			assert.Equal(t, [10]int{60}, endsIn(g, now))
		})
	}
}
