package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sqllease/sqllease"
)

// Goroutines run reports all the time, and every three seconds a health check pings.
const (
	reporters  = 500
	probes     = 20
	probeEvery = 3 * time.Second
)

var report = uniform(time.Second, 3*time.Second)

// uniform is anything from one length to the other.
func uniform(from, to time.Duration) lengths {
	return func(r *rand.Rand) time.Duration { return from + time.Duration(r.Int64N(int64(to-from))) }
}

var probed = []variant{
	alone,
	plain,
	{name: "sqllease, `\"probe\": {Reserve: 1}`", cfg: sqllease.Config{MinIdle: 1, Lanes: map[string]sqllease.Lane{"probe": {Reserve: 1}}}},
}

// probe is how many health checks succeed, of twenty, and how many reports are served meanwhile.
func (v variant) probe(t *testing.T, seed uint64) (answered, reports int) {
	synctest.Test(t, func(t *testing.T) {
		db, end := v.open(t, &server{slower: quick, dial: dialTime}, poolSize)
		defer end()
		begin := time.Now()
		until := begin.Add(probes * probeEvery)
		counts := make([]int, reporters)
		var all sync.WaitGroup
		for i := range reporters {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			all.Go(func() {
				for time.Now().Before(until) {
					c := caller{job: job{work: report(r)}, patience: time.Until(until)}
					if c.come(db, begin).end == served {
						counts[i]++
					}
				}
			})
		}
		for i := range probes {
			<-time.After(time.Until(begin.Add(time.Duration(i)*probeEvery + probeEvery/2)))
			ctx, cancel := context.WithTimeout(sqllease.WithLane(context.Background(), "probe"), patience)
			if db.PingContext(ctx) == nil {
				answered++
			}
			cancel()
		}
		all.Wait()
		for _, n := range counts {
			reports += n
		}
	})
	return answered, reports
}

// TestClaimsOfProbes has health checks wait behind reports.
func TestClaimsOfProbes(t *testing.T) {
	text := "| 10 connections, 500 goroutines with reports | health checks that succeed | reports served in a minute |\n|---|---|---|\n"
	for _, v := range probed {
		var answered, reports []int
		for _, seed := range seeds {
			a, n := v.probe(t, seed)
			answered, reports = append(answered, a), append(reports, n)
		}
		text += fmt.Sprintf("| %s | %s of %d | %d |\n", v.name, fromTo(answered), probes, mean(reports))
		if v.cfg.Lanes != nil {
			assert.Equal(t, []int{probes, probes, probes}, answered)
		}
	}
	t.Log("\n" + text)
	keep(t, overloadPage, "probes", text)
}
