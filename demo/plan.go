package main

import (
	"context"
	"fmt"
	"time"
)

// This file is the plan of a run: its phases, and the requests that make the
// application's mistakes show.

// phase is a stretch of time with one level of load.
type phase struct {
	name   string
	length time.Duration
	factor float64 // of the endpoints' rates
}

// rush is the name of the phase in which the pool is too small.
const rush = "rush"

// phasesOf divides a run: a rush between steady stretches, and after it a quiet
// one, in which sessions idle beyond the server's limit.
func phasesOf(total, idleLimit time.Duration) []phase {
	quiet := idleLimit + time.Second
	busy := total - quiet
	return []phase{
		{"steady", busy * 30 / 100, 1},
		{rush, busy * 40 / 100, 3},
		{"quiet", quiet, 0},
		{"steady", busy * 30 / 100, 1},
	}
}

// phaseAt returns the phase at a time since the start, and how much of it is
// left. The phases repeat.
func phaseAt(phases []phase, at time.Duration) (phase, time.Duration) {
	at %= lengthOf(phases)
	for _, p := range phases {
		if at < p.length {
			return p, p.length - at
		}
		at -= p.length
	}
	panic("demo: bug: no phase at this time")
}

func lengthOf(phases []phase) (total time.Duration) {
	for _, p := range phases {
		total += p.length
	}
	return total
}

// leakTimes are when a customer whose orders are in dispute asks for an
// export: twice before the rush, and once in it.
func leakTimes(phases []phase) [disputed]time.Duration {
	return [disputed]time.Duration{phases[0].length * 3 / 10, phases[0].length * 8 / 10, phases[0].length + phases[1].length*3/10}
}

// The endpoints that the report looks at: one whose query is quick and one
// whose query takes its time, and those with the application's mistakes.
const (
	quickRequest      = "GET /products/{id}"
	slowRequest       = "GET /report"
	leakingRequest    = "GET /export"
	nestingRequest    = "GET /invoice"
	statisticsRequest = "GET /statistics"
	lockingRequest    = "POST /stocktaking/{id}"
	lockedRequest     = "POST /deliveries/{id}"
)

func exportOf(customer int) string { return fmt.Sprintf("/export?customer=%d", customer) }

// leak sends the requests that the application answers with a leak. It does so
// once in a run, however long: each takes a connection from the pool for good.
func (l *load) leak(ctx context.Context) {
	for i, at := range leakTimes(l.phases) {
		if !sleep(ctx, at-l.since()) {
			return
		}
		l.flying.Go(func() { l.send(leakingRequest, exportOf(customers-i), "") })
	}
}

// dawdle sends a request with a slow call early in each round of the phases.
func (l *load) dawdle(ctx context.Context) {
	for at := l.phases[0].length / 10; sleep(ctx, at-l.since()); at += lengthOf(l.phases) {
		l.flying.Go(func() { l.send(statisticsRequest, "/statistics", "") })
	}
}

// lock sends a stocktaking, and soon a delivery that waits for its lock, early in the
// last phase of each round. No other call is slow then: sqllease asks the server at
// most once in two seconds who blocks a slow call.
func (l *load) lock(ctx context.Context) {
	last := l.phases[len(l.phases)-1].length
	for at := lengthOf(l.phases) - last*9/10; sleep(ctx, at-l.since()); at += lengthOf(l.phases) {
		l.flying.Go(func() { l.send(lockingRequest, "/stocktaking/7", "") })
		if !sleep(ctx, 100*time.Millisecond) {
			return
		}
		l.flying.Go(func() { l.send(lockedRequest, "/deliveries/7", "") })
	}
}

// nesters is how many invoices are asked for at once. As many as there are
// connections would be a deadlock.
const nesters = 2

// nest asks for one invoice after the other in each rush, once it has filled the
// pool. For each, the application takes a second connection while it holds one.
func (l *load) nest(ctx context.Context) {
	for {
		p, left := l.now()
		wait := left
		switch filling := p.length / 3; {
		case p.name == rush && left <= p.length-filling:
			l.send(nestingRequest, "/invoice?customer=1", "")
			wait = 20 * time.Millisecond
		case p.name == rush:
			wait = left - (p.length - filling)
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}
