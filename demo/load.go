package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// This file is the load: requests that arrive as those of many independent
// users do, at random instants (a Poisson process) and at a rate that does not
// care how long the answers take.

// endpoint is one kind of request, and how many of it come per second.
type endpoint struct {
	name    string // as its route
	rate    float64
	request func(*rand.Rand) (path, body string)
}

var endpoints = []endpoint{
	{"GET /products/{id}", 40, func(r *rand.Rand) (string, string) {
		return fmt.Sprintf("/products/%d", 1+r.IntN(products)), ""
	}},
	{"GET /orders", 8, func(*rand.Rand) (string, string) { return "/orders", "" }},
	{"POST /orders", 5, func(r *rand.Rand) (string, string) {
		return "/orders", fmt.Sprintf(`{"customer": %d, "product": %d}`, 1+r.IntN(customers-disputed), 1+r.IntN(products))
	}},
	{"GET /report", 3, func(*rand.Rand) (string, string) { return "/report", "" }},
	{"GET /export", 3, func(r *rand.Rand) (string, string) { return exportOf(1 + r.IntN(customers-disputed)), "" }},
}

func exportOf(customer int) string { return fmt.Sprintf("/export?customer=%d", customer) }

// phase is a stretch of time with one level of load.
type phase struct {
	name   string
	length time.Duration
	factor float64 // of the endpoints' rates
}

// phasesOf divides a run: busy stretches, and between them quiet ones, in
// which sessions idle beyond the server's limit.
func phasesOf(total, idleLimit time.Duration) []phase {
	quiet := phase{"quiet", idleLimit + time.Second, 0}
	busy := total - 2*quiet.length
	return []phase{
		{"steady", busy * 35 / 100, 1},
		quiet,
		{"rush", busy * 30 / 100, 3},
		quiet,
		{"steady", busy * 35 / 100, 1},
	}
}

// leakTimes are when a customer whose orders are in dispute asks for an
// export: twice in the first phase, and in the third.
func leakTimes(phases []phase) [disputed]time.Duration {
	rush := phases[0].length + phases[1].length
	return [disputed]time.Duration{phases[0].length * 3 / 10, phases[0].length * 8 / 10, rush + phases[2].length*3/10}
}

// phaseAt returns the phase at a time since the start, and how much of it is
// left. The phases repeat.
func phaseAt(phases []phase, at time.Duration) (phase, time.Duration) {
	var total time.Duration
	for _, p := range phases {
		total += p.length
	}
	at %= total
	for _, p := range phases {
		if at < p.length {
			return p, p.length - at
		}
		at -= p.length
	}
	panic("demo: bug: no phase at this time")
}

// load sends requests to a service and counts the answers.
type load struct {
	url    string
	phases []phase
	client *http.Client
	start  time.Time
	flying sync.WaitGroup

	mu       sync.Mutex
	sent     int         // guarded by mu
	refused  []time.Time // guarded by mu: when exports were refused; each leaks
	failures tally       // guarded by mu
}

func newLoad(url string, phases []phase) *load {
	return &load{
		url:    url,
		phases: phases,
		client: &http.Client{
			Timeout:   20 * time.Second,
			Transport: &http.Transport{MaxIdleConnsPerHost: 64},
		},
	}
}

// run sends requests until ctx ends, then waits for the last answers.
func (l *load) run(ctx context.Context) {
	l.start = time.Now()
	var arrivals sync.WaitGroup
	for i, e := range endpoints {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		arrivals.Go(func() { l.arrive(ctx, e, random) })
	}
	arrivals.Go(func() { l.provoke(ctx) })
	arrivals.Wait()
	l.flying.Wait()
	l.client.CloseIdleConnections()
}

// arrive sends one endpoint's requests. The gaps of a Poisson process have no
// memory, so that a gap that ends in another phase is simply drawn again there.
func (l *load) arrive(ctx context.Context, e endpoint, random *rand.Rand) {
	for {
		p, left := phaseAt(l.phases, time.Since(l.start))
		gap := left
		if p.factor > 0 {
			gap = min(left, time.Duration(random.ExpFloat64()/(e.rate*p.factor)*float64(time.Second)))
		}
		if !sleep(ctx, gap) {
			return
		}
		if gap < left {
			path, body := e.request(random)
			l.flying.Go(func() { l.send(e.name, path, body) })
		}
	}
}

// provoke sends the requests that the application answers with a leak.
func (l *load) provoke(ctx context.Context) {
	for i, at := range leakTimes(l.phases) {
		if !sleep(ctx, time.Until(l.start.Add(at))) {
			return
		}
		l.flying.Go(func() { l.send("GET /export", exportOf(customers-i), "") })
	}
}

// send sends one request and counts its answer.
func (l *load) send(name, path, body string) {
	method, _, _ := strings.Cut(name, " ")
	status, text, err := l.exchange(method, path, body)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	switch {
	case err != nil:
		l.failures.add(fmt.Sprintf("%s: %v", name, err))
	case status == http.StatusConflict:
		l.refused = append(l.refused, time.Now())
	case status != http.StatusOK:
		l.failures.add(fmt.Sprintf("%s: %d: %s", name, status, text))
	}
}

func (l *load) exchange(method, path, body string) (status int, text string, err error) {
	req, err := http.NewRequest(method, l.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	res, err := l.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }() // it was read
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, strings.TrimSpace(string(answer)), err
}

// counts is what the load has seen so far.
type counts struct {
	sent     int
	refused  []time.Time
	failures []string // each with how often
	failed   int
}

func (l *load) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return counts{l.sent, slices.Clone(l.refused), l.failures.list(), l.failures.total}
}

// sleep waits, and reports false if ctx ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
