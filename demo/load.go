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
// care how long the answers take. No more than some reach the service at once,
// as behind a proxy.

// endpoint is one kind of request, and how many of it come per second.
type endpoint struct {
	name    string // as its route
	rate    float64
	request func(*rand.Rand) (path, body string)
}

var endpoints = []endpoint{
	{"GET /products/{id}", 20, func(r *rand.Rand) (string, string) {
		return fmt.Sprintf("/products/%d", 1+r.IntN(products)), ""
	}},
	{"GET /orders", 4, func(*rand.Rand) (string, string) { return "/orders", "" }},
	{"POST /orders", 4, func(r *rand.Rand) (string, string) {
		return "/orders", fmt.Sprintf(`{"customer": %d, "product": %d}`, 1+r.IntN(customers-disputed), 1+r.IntN(products))
	}},
	{slowRequest, 7, func(*rand.Rand) (string, string) { return "/report", "" }},
	{"GET /export", 2, func(r *rand.Rand) (string, string) { return exportOf(1 + r.IntN(customers-disputed)), "" }},
}

// load sends requests to a service and counts the answers.
type load struct {
	url    string
	phases []phase
	client *http.Client
	flying sync.WaitGroup
	proxy  chan struct{} // a place for each request that the service has

	mu       sync.Mutex
	start    time.Time   // guarded by mu
	sent     int         // guarded by mu
	refused  []time.Time // guarded by mu: when exports were refused; each leaks
	failures tally       // guarded by mu
}

// mostAtOnce is how many requests the service has at once. On a slow machine it
// bounds the wait for a connection, which invoices spend with a connection in
// hand: the server would cut that one.
const mostAtOnce = 40

func newLoad(url string, phases []phase) *load {
	return &load{
		url:    url,
		phases: phases,
		proxy:  make(chan struct{}, mostAtOnce),
		client: &http.Client{
			Timeout:   20 * time.Second,
			Transport: &http.Transport{MaxIdleConnsPerHost: 64},
		},
	}
}

// run sends requests until ctx ends, then waits for the last answers.
func (l *load) run(ctx context.Context) {
	l.mu.Lock()
	l.start = time.Now()
	l.mu.Unlock()
	var arrivals sync.WaitGroup
	for i, e := range endpoints {
		random := rand.New(rand.NewPCG(1, uint64(i)))
		arrivals.Go(func() { l.arrive(ctx, e, random) })
	}
	arrivals.Go(func() { l.leak(ctx) })
	arrivals.Go(func() { l.dawdle(ctx) })
	arrivals.Go(func() { l.lock(ctx) })
	for range nesters {
		arrivals.Go(func() { l.nest(ctx) })
	}
	arrivals.Wait()
	l.flying.Wait()
	l.client.CloseIdleConnections()
}

// arrive sends one endpoint's requests. The gaps of a Poisson process have no
// memory, so that a gap that ends in another phase is simply drawn again there.
func (l *load) arrive(ctx context.Context, e endpoint, random *rand.Rand) {
	for {
		p, left := l.now()
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

// send sends one request and counts its answer.
func (l *load) send(name, path, body string) {
	l.proxy <- struct{}{}
	defer func() { <-l.proxy }()
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

// since is the time since the start; zero before.
func (l *load) since() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.start.IsZero() {
		return 0
	}
	return time.Since(l.start)
}

// now returns the phase that the load is in, and how much of it is left.
func (l *load) now() (phase, time.Duration) { return phaseAt(l.phases, l.since()) }

// inRush tells whether the load is in its rush.
func (l *load) inRush() bool {
	p, _ := l.now()
	return p.name == rush
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
