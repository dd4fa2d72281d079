package gate

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// The benchmarks show for how long the gate's lock is held: each call of the gate is
// little else. None depends on how many sessions there are, or wait, but for an expiry,
// which has a heap, and a dial, for which all are counted.

func atScale(b *testing.B, what string, f func(b *testing.B, n int)) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("%s=%d", what, n), func(b *testing.B) { f(b, n) })
	}
}

// fullGate is one whose sessions are all held.
func fullGate(b *testing.B, n int, life Life, now clock.Instant) (*Gate[conn, caller], []*conn) {
	g, _ := newGate(n, 0)
	all := make([]*conn, n)
	for i := range all {
		all[i] = heldWith(b, g, life, now)
	}
	return g, all
}

// readyGate is one whose sessions are all ready, one after the other.
func readyGate(b *testing.B, n int, life Life, now clock.Instant) (*Gate[conn, caller], []*Ticket[conn]) {
	g, all := fullGate(b, n, life, now)
	tickets := make([]*Ticket[conn], n)
	for i, s := range all {
		tickets[i] = &Ticket[conn]{}
		require.Equal(b, Kept, g.Return(tickets[i], &s.Session, false, now.Add(time.Duration(i))))
	}
	return g, tickets
}

func BenchmarkTakeAndReturn(b *testing.B) {
	atScale(b, "ready", func(b *testing.B, n int) {
		now := clock.Now()
		g, tickets := readyGate(b, n, Life{Idle: time.Hour}, now)
		ticket := tickets[n-1]
		b.ReportAllocs()
		for b.Loop() {
			now++
			s, _, _ := g.Take(ticket, false, 0, now)
			g.Return(ticket, &s.Session, false, now.Add(time.Second))
		}
	})
	atScale(b, "held", func(b *testing.B, n int) {
		now := clock.Now()
		g, all := fullGate(b, n, Life{Idle: time.Hour}, now)
		ticket := &Ticket[conn]{}
		s := all[n/2]
		b.ReportAllocs()
		for b.Loop() {
			g.Return(ticket, &s.Session, false, now)
			g.Take(ticket, false, 0, now)
		}
	})
}

func BenchmarkAskAndHandover(b *testing.B) {
	atScale(b, "waiters", func(b *testing.B, n int) {
		now := clock.Now()
		g, all := fullGate(b, 1, Life{}, now)
		waiters := make([]*Waiter[conn, caller], n)
		for i := range waiters {
			waiters[i] = newWaiter()
			_, _, _ = g.Ask(waiters[i], now)
		}
		ticket, s := &Ticket[conn]{}, all[0]
		next := 0
		b.ReportAllocs()
		for b.Loop() {
			g.Return(ticket, &s.Session, false, now)
			w := waiters[next%n]
			<-w.served
			w.Prepare(w.caller, 0, 0, 0)
			_, _, _ = g.Ask(w, now)
			next++
		}
	})
}

func BenchmarkExpiry(b *testing.B) {
	atScale(b, "ready", func(b *testing.B, n int) {
		now := clock.Now()
		idle := time.Duration(n)
		g, _ := readyGate(b, n, Life{Idle: idle}, now)
		ticket := &Ticket[conn]{}
		now = now.Add(idle)
		b.ReportAllocs()
		for b.Loop() { // each time one expires, and another is dialed for it
			expired, _ := g.Wake(now)
			if len(expired) != 1 {
				b.Fatal(len(expired), "have expired")
			}
			s := expired[0]
			g.Replace(&s.Session, newWaiter(), now)
			g.Dialed(s, &s.Session, Life{Idle: idle}, 0, now)
			g.Return(ticket, &s.Session, false, now)
			now++
		}
	})
}

func BenchmarkDialed(b *testing.B) { // looks at all for the end of one
	atScale(b, "held", func(b *testing.B, n int) {
		now := clock.Now()
		life := Life{End: now.Add(time.Hour), Jitter: 0.025, Chance: 0.5}
		g, all := fullGate(b, n, life, now)
		s := all[0]
		b.ReportAllocs()
		for b.Loop() {
			g.Reject(&s.Session, Bad)
			g.Replace(&s.Session, newWaiter(), now)
			g.Dialed(s, &s.Session, life, 0, now)
		}
	})
}

func BenchmarkGiveUp(b *testing.B) {
	atScale(b, "waiters", func(b *testing.B, n int) {
		now := clock.Now()
		g, _ := fullGate(b, 1, Life{}, now)
		waiters := make([]*Waiter[conn, caller], n)
		for i := range waiters {
			waiters[i] = newWaiter()
			_, _, _ = g.Ask(waiters[i], now)
		}
		next := n / 2
		b.ReportAllocs()
		for b.Loop() { // from the middle of the queue
			w := waiters[next%n]
			if _, place, _ := g.GiveUp(w); place == 0 {
				b.Fatal("it was served")
			}
			w.Prepare(w.caller, 0, 0, 0)
			_, _, _ = g.Ask(w, now)
			next++
		}
	})
}

func BenchmarkLookAfter(b *testing.B) {
	atScale(b, "ready", func(b *testing.B, n int) {
		now := clock.Now()
		g, _ := readyGate(b, n, Life{Idle: time.Hour}, now)
		b.ReportAllocs()
		for b.Loop() { // of those that were not used for longest
			for _, s := range g.TakeReady(8, func(*conn) bool { return true }) {
				g.PutBack(&s.Session, now)
			}
		}
	})
}
