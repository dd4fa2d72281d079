package main

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// slowService is a service that takes its time over every answer.
type slowService struct {
	mu   sync.Mutex
	seen map[string][]time.Duration // guarded by mu: when requests came, by method and path
	from time.Time
}

const answerTime = 5 * time.Second

func (s *slowService) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	what := r.Method + " " + r.URL.Path
	s.seen[what] = append(s.seen[what], time.Since(s.from))
	s.mu.Unlock()
	time.Sleep(answerTime)
	return httptest.NewRecorder().Result(), nil
}

func TestRequestsArriveAtTheirRateHoweverLongAnswersTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &slowService{seen: map[string][]time.Duration{}, from: time.Now()}
		l := newLoad("http://shop", []phase{{"steady", time.Minute, 1}, {"quiet", 10 * time.Second, 0}, {rush, time.Minute, 2}})
		l.client.Transport = service
		l.proxy = make(chan struct{}, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), 130*time.Second)
		defer cancel()
		l.run(ctx)

		for what, rate := range map[string]float64{"GET /orders": 4, "POST /orders": 4, "GET /report": 7} {
			var steady, quiet, rush int
			for _, at := range service.seen[what] {
				switch {
				case at < 60*time.Second:
					steady++
				case at < 70*time.Second:
					quiet++
				default:
					rush++
				}
			}
			assert.InEpsilon(t, 60*rate, steady, 0.25, what)
			assert.Zero(t, quiet, what)
			assert.InEpsilon(t, 120*rate, rush, 0.25, what)
		}
		assert.Empty(t, l.counts().failures)
	})
}

func TestPhasesFillTheRunAndLetSessionsExpire(t *testing.T) {
	const idleLimit = 3 * time.Second
	for _, total := range []time.Duration{shortest, 30 * time.Second, 10 * time.Minute} {
		var sum time.Duration
		for _, p := range phasesOf(total, idleLimit) {
			assert.Positive(t, p.length)
			if p.factor == 0 {
				assert.Greater(t, p.length, idleLimit)
			}
			sum += p.length
		}
		assert.InDelta(t, total, sum, float64(time.Microsecond))
	}
}

func TestPhasesRepeat(t *testing.T) {
	phases := []phase{{"steady", 2 * time.Second, 1}, {"quiet", time.Second, 0}}
	for at, want := range map[time.Duration]string{
		0: "steady", 1999 * time.Millisecond: "steady", 2 * time.Second: "quiet", 3 * time.Second: "steady", 5 * time.Second: "quiet",
	} {
		p, _ := phaseAt(phases, at)
		assert.Equal(t, want, p.name, "at %v", at)
	}
	_, left := phaseAt(phases, 4*time.Second)
	assert.Equal(t, time.Second, left)
}

func TestTheMistakesShowBeforeTheEndOfTheShortestRun(t *testing.T) {
	opt, err := parse(nil, t.Output())
	assert.NoError(t, err)
	phases := phasesOf(shortest, opt.idleLimit)
	for _, at := range leakTimes(phases) {
		assert.Less(t, at+opt.leakThreshold+time.Second, shortest)
	}
	synctest.Test(t, func(t *testing.T) {
		service := &slowService{seen: map[string][]time.Duration{}, from: time.Now()}
		l := newLoad("http://shop", phases)
		l.client.Transport = service
		l.proxy = make(chan struct{}, 1000)
		ctx, cancel := context.WithTimeout(t.Context(), 2*shortest)
		defer cancel()
		l.run(ctx)

		assert.Len(t, service.seen["GET /statistics"], 2, "one in each round")
		assert.Less(t, service.seen["GET /statistics"][0], shortest/2)
		require.Len(t, service.seen["POST /stocktaking/7"], 2)
		require.Len(t, service.seen["POST /deliveries/7"], 2)
		stocktaking, delivery := service.seen["POST /stocktaking/7"][0], service.seen["POST /deliveries/7"][0]
		assert.Greater(t, delivery, stocktaking, "it finds the lock taken")
		assert.Less(t, stocktaking+2*time.Second, shortest, "it is told before the report")
		assert.Greater(t, stocktaking-service.seen["GET /statistics"][0], 4*time.Second, "the server can be asked again by then")
		require.NotEmpty(t, service.seen["GET /invoice"])
		for i, at := range service.seen["GET /invoice"] {
			p, _ := phaseAt(phases, at)
			assert.Equal(t, rush, p.name)
			if i >= nesters {
				assert.GreaterOrEqual(t, at-service.seen["GET /invoice"][i-nesters], answerTime, "no more at once")
			}
		}
	})
}

func TestTheServiceHasNoMoreRequestsAtOnceThanTheProxyLetsThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := &slowService{seen: map[string][]time.Duration{}, from: time.Now()}
		l := newLoad("http://shop", []phase{{"steady", time.Minute, 3}, {rush, time.Minute, 3}})
		l.client.Transport = service
		ctx, cancel := context.WithTimeout(t.Context(), 3*answerTime)
		defer cancel()
		l.run(ctx)

		served := map[time.Duration]int{} // by the answer time that a request came in
		for _, at := range slices.Concat(slices.Collect(maps.Values(service.seen))...) {
			served[at/answerTime]++
		}
		assert.Equal(t, mostAtOnce, served[0])
		for _, n := range served {
			assert.LessOrEqual(t, n, mostAtOnce)
		}
	})
}
