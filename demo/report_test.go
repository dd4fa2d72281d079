package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
)

func TestPercentilesAreWithinHalfAClass(t *testing.T) {
	var d durations
	for i := 1; i <= 1000; i++ {
		d.add(time.Duration(i) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{
		0.001: 1 * time.Millisecond,
		0.50:  500 * time.Millisecond,
		0.99:  990 * time.Millisecond,
		1:     1000 * time.Millisecond,
	} {
		assert.InEpsilon(t, want, d.percentile(q), 0.006, "percentile %v", q)
	}
	assert.Equal(t, 1000, d.n)
}

func TestPercentilesOfFewAndOfNone(t *testing.T) {
	var d durations
	assert.Zero(t, d.percentile(0.99))

	d.add(0)
	assert.Equal(t, "0 ms", ms(d.percentile(0.99)), "a wait of nothing is nothing")

	var one durations
	one.add(7 * time.Millisecond)
	assert.InEpsilon(t, 7*time.Millisecond, one.percentile(0.50), 0.006)
	assert.InEpsilon(t, 7*time.Millisecond, one.percentile(0.99), 0.006)
}

func TestMostRequestsDoNotWaitButOneInAHundredDoes(t *testing.T) {
	var d durations
	for range 98 {
		d.add(0)
	}
	d.add(40 * time.Millisecond)
	d.add(80 * time.Millisecond)
	assert.Equal(t, "0 ms", ms(d.percentile(0.50)))
	assert.InEpsilon(t, 40*time.Millisecond, d.percentile(0.99), 0.006)
}

func TestSpansAreFoldedIntoTheirRequest(t *testing.T) {
	fold := newSpanFold()
	fold.inRush = func() bool { return true }
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(fold))
	service, pool := provider.Tracer("service"), provider.Tracer(sqlleaseScope)
	start := time.Now()
	span := func(tracer trace.Tracer, ctx context.Context, name string, took time.Duration) {
		_, s := tracer.Start(ctx, name, trace.WithTimestamp(start))
		s.End(trace.WithTimestamp(start.Add(took)))
	}

	ctx, request := service.Start(t.Context(), "GET /orders",
		trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(start))
	span(pool, ctx, "pool.acquire", 4*time.Millisecond)
	span(pool, ctx, "SELECT orders", 5*time.Millisecond)
	span(pool, ctx, "COMMIT", time.Millisecond)
	span(pool, ctx, "sqllease.leak", 7*time.Millisecond)
	span(service, ctx, "render", 8*time.Millisecond)
	_, rows := pool.Start(ctx, "SELECT left open", trace.WithTimestamp(start))
	request.End(trace.WithTimestamp(start.Add(20 * time.Millisecond)))
	rows.End()
	span(pool, t.Context(), "sqllease.leak", time.Second)

	figures := fold.snapshot(true)
	require.Len(t, figures, 1)
	f := figures["GET /orders"]
	assert.InEpsilon(t, 4*time.Millisecond, f.wait.p99(), 0.006)
	assert.InEpsilon(t, 6*time.Millisecond, f.querying.p99(), 0.006)
	assert.Empty(t, fold.snapshot(false), "it came in the rush")
	assert.Empty(t, fold.open, "nothing is kept of a request that is over")
}

// good is a report with nothing wrong in it.
func good() *report {
	return &report{
		ran: 30 * time.Second, planned: 30 * time.Second, whole: true,
		rush: map[string]*figures{
			quickRequest: rushFigures(400*time.Millisecond, 3*time.Millisecond),
			slowRequest:  rushFigures(390*time.Millisecond, 355*time.Millisecond),
		},
		stats: sqllease.Stats{
			Limit: 8, IdleLimit: 3 * time.Second, Lifetime: 2500 * time.Millisecond, Acquires: 1600, Waits: 700, Dials: 50,
			Closed: sqllease.ClosedStats{Expired: 40},
		},
		cuts: 1, cutsSeen: true,
		counts:  counts{sent: 1000, refused: []time.Time{{}}},
		leakDue: 1,
		leaks:   []site{{"demo/app.go:150 main.(*shop).export", 1, 1, "close the *sql.Rows on every path"}},
		slow:    []site{{"demo/app.go:223 main.(*shop).statistics", 1, 0, "look at the statement's plan"}},
		nested: []nesting{{"demo/app.go:194 main.(*shop).invoice", "demo/app.go:180 main.(*shop).find",
			"use the connection that is held, or raise the limit from 8 to at least 13"}},
		blocked: []blocking{{"demo/app.go:279 main.(*shop).delivery", "demo/app.go:249 main.(*shop).stocktaking", 1,
			"it waits for the code at demo/app.go:249 main.(*shop).stocktaking", ""}},
		idleLimit: 3 * time.Second, longCall: time.Second,
	}
}

func rushFigures(wait, querying time.Duration) *figures {
	f := &figures{}
	f.add(wait, querying)
	return f
}

func text(r *report) string {
	var out strings.Builder
	r.print(&out)
	return out.String()
}

func TestTheReportFailsWithoutAnyOfTheSix(t *testing.T) {
	require.Empty(t, good().wrong())
	assert.Contains(t, text(good()), "\nPASS: all 6 were seen; 1000 requests, and no error.\n")
	assert.Equal(t, 6, strings.Count(text(good()), ": SEEN\n"))

	for name, missing := range map[string]struct {
		number int
		change func(*report)
	}{
		"few waited":                  {1, func(r *report) { r.stats.Waits = 99 }},
		"the quick query was slow":    {1, func(r *report) { r.rush[quickRequest] = rushFigures(time.Second, 2*time.Second) }},
		"there was no rush":           {1, func(r *report) { r.rush = nil }},
		"no leak was found":           {2, func(r *report) { r.leaks = nil }},
		"a leak was not found":        {2, func(r *report) { r.leakDue = 2 }},
		"a leak was found elsewhere":  {2, func(r *report) { r.leaks[0].place = "demo/app.go:60 main.(*shop).orders" }},
		"a leak has no fix":           {2, func(r *report) { r.leaks[0].fix = "" }},
		"nothing leaked":              {2, func(r *report) { r.leakDue, r.leaks = 0, nil }},
		"no nested acquire was found": {3, func(r *report) { r.nested = nil }},
		"one was found elsewhere":     {3, func(r *report) { r.nested[0].holder = r.nested[0].waiter }},
		"it waited elsewhere":         {3, func(r *report) { r.nested[0].waiter = r.nested[0].holder }},
		"no limit is told":            {3, func(r *report) { r.nested[0].fix = "" }},
		"no slow call was found":      {4, func(r *report) { r.slow = nil }},
		"another call was slow":       {4, func(r *report) { r.slow[0].place = "demo/app.go:60 main.(*shop).orders" }},
		"it was taken for a leak":     {4, func(r *report) { r.leaks = append(r.leaks, r.slow[0]) }},
		"no call waited for a lock":   {5, func(r *report) { r.blocked = nil }},
		"one waited elsewhere":        {5, func(r *report) { r.blocked[0].waiter = r.blocked[0].holder }},
		"who has the lock is unknown": {5, func(r *report) { r.blocked[0].holder = "" }},
		"a lock has no fix":           {5, func(r *report) { r.blocked[0].fix = "" }},
		"nothing was retired":         {6, func(r *report) { r.stats.Closed.Expired = 0 }},
		"no idle limit was found":     {6, func(r *report) { r.stats.IdleLimit = 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			missing.change(r)
			wrong := r.wrong()
			require.Len(t, wrong, 1)
			assert.Contains(t, wrong[0], fmt.Sprintf("%d was not seen: ", missing.number))
			assert.Contains(t, text(r), "\nFAIL\n  - "+wrong[0][:20])
			assert.NotContains(t, text(r), "PASS")
			assert.Equal(t, 1, strings.Count(text(r), ": NOT SEEN\n"))
		})
	}
}

func TestTheReportFailsForWhatWentWrong(t *testing.T) {
	for name, change := range map[string]func(*report){
		"a request failed":          func(r *report) { r.counts.failed = 1 },
		"a session was cut":         func(r *report) { r.cuts = 2 },
		"a session was dead":        func(r *report) { r.stats.Closed.Cut = 1 },
		"the pool stood still":      func(r *report) { r.stats.Deadlocks = 1 },
		"a library logged an error": func(r *report) { r.logged = []string{"1 × MySQL driver: unexpected EOF"} },
	} {
		for _, whole := range []bool{true, false} {
			r := good()
			r.whole = whole
			change(r)
			assert.Len(t, r.wrong(), 1, name)
			assert.Contains(t, text(r), "\nFAIL\n", name)
		}
	}
}

func TestAnInterruptedRunIsJudgedByWhatWasDue(t *testing.T) {
	r := good()
	r.whole, r.ran = false, 7*time.Second
	r.leakDue, r.leaks, r.slow, r.nested, r.blocked, r.rush, r.stats.Closed.Expired = 0, nil, nil, nil, nil, nil, 0
	assert.Empty(t, r.wrong())
	assert.Contains(t, text(r), "What the demo showed in 7 s of 30 s (interrupted), on a pool of 8 connections\n")
	assert.Equal(t, 6, strings.Count(text(r), ": not due yet\n"))
	assert.Contains(t, text(r), "\nPASS: 0 of 6 were seen, the others were not due;")

	r.leakDue = 1
	assert.Len(t, r.wrong(), 1, "this leak was due")
	assert.Contains(t, text(r), "2. Mistake 1 of 4: a leak, with its line of code: NOT SEEN\n")
}

func TestALongerLimitOfTheServerNeedNotBeReached(t *testing.T) {
	r := good()
	r.stats.IdleLimit, r.stats.Closed.Expired = 8*time.Hour, 0
	assert.Empty(t, r.wrong())
	assert.Contains(t, text(r), "\nPASS: 5 of 6 were seen, the others were not due;")
}

func TestWhatCameAfterTheReportIsJudged(t *testing.T) {
	first, last := good(), good()
	closing := func() string {
		var out strings.Builder
		first.printLater(&out, last)
		return out.String()
	}
	last.ran, last.counts.sent, last.stats.Closed.Expired = 74*time.Second, 1001, 43
	assert.Equal(t, "\nEnded after 74 s. Since the report: 1 request, 0 errors, 3 connections closed in time.\nPASS\n", closing())

	first.nested = nil
	assert.Contains(t, closing(), "FAIL: the report says why.\n")

	last.counts.failed, last.counts.failures = 1, []string{"1 × GET /orders: timeout"}
	assert.Contains(t, closing(), "1 error, ")
	assert.Contains(t, closing(), "FAIL\n  - 1 of 1001 requests failed\n")
	assert.Contains(t, closing(), "GET /orders: timeout")
}

func TestTheReportFitsEightyColumns(t *testing.T) {
	r := good()
	for _, e := range endpoints {
		r.rush[e.name] = rushFigures(20*time.Second, 20*time.Second)
		r.rush[e.name].wait.n = 10_000_000
	}
	r.stats.Acquires, r.stats.Waits, r.cuts = 10_000_000, 9_000_000, 3
	r.logged = []string{strings.Repeat("a long line ", 30)}
	r.counts.failures = r.logged
	for _, line := range strings.Split(text(r)+progressHeader, "\n") {
		assert.LessOrEqual(t, utf8.RuneCountInString(line), lineWidth, line)
	}
}

func TestLeaksAreFoldedByPlace(t *testing.T) {
	f := newFindings()
	leak := func(id uint64, class sqllease.Class) sqllease.Leak {
		return sqllease.Leak{Lease: sqllease.Lease{ID: id, OpenRows: 1}, Class: class}
	}
	unused := sqllease.ClassUnused
	f.addLeak(leak(1, unused))
	f.addLeak(leak(2, unused))
	proven, returned := leak(2, sqllease.ClassProven), leak(1, unused)
	proven.Reclaimed, returned.Returned = true, true
	f.addLeak(proven)
	f.addLeak(returned)

	require.Len(t, f.leakSites(), 1)
	assert.Equal(t, 2, f.leakSites()[0].count)
	assert.Equal(t, 1, f.leakSites()[0].takenBack)
	assert.Contains(t, f.leakSites()[0].fix, "rows.Close()")
}

func TestSlowCallsAreCountedOnce(t *testing.T) {
	f := newFindings()
	f.addSlowCall(sqllease.SlowCall{})
	f.addSlowCall(sqllease.SlowCall{Returned: true})
	require.Len(t, f.slowSites(), 1)
	assert.Equal(t, 1, f.slowSites()[0].count)
	assert.Contains(t, f.slowSites()[0].fix, "plan")
	assert.Empty(t, f.leakSites())
}

func TestCallsThatWaitForALockAreNoOtherSlowCalls(t *testing.T) {
	f := newFindings()
	holder := sqllease.Lease{ID: 7}
	f.addSlowCall(sqllease.SlowCall{Blockers: []sqllease.Blocker{{Waits: true, Lease: &sqllease.Lease{ID: 6}}, {Lease: &holder}}})
	f.addSlowCall(sqllease.SlowCall{Blockers: []sqllease.Blocker{{}}})
	assert.Empty(t, f.slowSites())
	require.Len(t, f.blockings(), 1)
	assert.Equal(t, 2, f.blockings()[0].count)
	assert.Equal(t, holder.Stack.Site(), f.blockings()[0].holder)
	assert.Empty(t, holderOf([]sqllease.Blocker{{}}), "it is not the application's")
	assert.Empty(t, holderOf([]sqllease.Blocker{{Waits: true, Lease: &holder}}))
}

func TestWhatTheServerDoesNotShowIsNoFailure(t *testing.T) {
	f := newFindings()
	j := &journal{}
	slog.New(poolLog{j, f}).Warn("the server does not show all", "remedy", "GRANT PROCESS ON *.* TO app")
	assert.Empty(t, j.list())
	r := good()
	r.remedies = f.remedyList()
	assert.Empty(t, r.wrong())
	assert.Contains(t, text(r), "GRANT PROCESS ON *.* TO app")
}

func TestOnlyWarningsThatNobodyElseHasAreKept(t *testing.T) {
	f := newFindings()
	j := &journal{}
	logger := slog.New(poolLog{j, f})
	nested := slog.Group("nested", "holder", "a.go:1 a.f", "waiter", "a.go:2 a.g", "fix", "raise the limit")
	logger.Warn("a leak", "leak", sqllease.Leak{})
	logger.Warn("a slow call", "slow_call", sqllease.SlowCall{})
	logger.Warn("a nested acquire", nested)
	logger.Info("nothing to speak of")
	assert.Empty(t, j.list())
	assert.Equal(t, []nesting{{"a.go:1 a.f", "a.go:2 a.g", "raise the limit"}}, f.nestings())

	logger.Error("a deadlock", nested)
	logger.Warn("something else", "stack", strings.Repeat("…", 1000))
	require.Len(t, j.list(), 2)
	for _, entry := range j.list() {
		assert.Less(t, len(entry), longestEntry+40)
	}
	assert.Len(t, f.nestings(), 1)
}

func TestLongTextsAreWrapped(t *testing.T) {
	long := strings.TrimSpace(strings.Repeat("0123456789 ", 12))
	wrapped := wrap(long, "   ")
	assert.Len(t, strings.Split(wrapped, "\n"), 2)
	assert.Equal(t, strings.Fields(long), strings.Fields(wrapped))
	assert.Equal(t, "   a  b", wrap("a  b", "   "), "what fits keeps its spaces")
	assert.Empty(t, wrap("", "   "))
}

func TestNumbersAreSaidAsPeopleSayThem(t *testing.T) {
	assert.Equal(t, "1 request", plural(1, "request"))
	assert.Equal(t, "0 requests", plural(0, "request"))
	assert.Equal(t, "2.5 s", seconds(2500*time.Millisecond))
	assert.Equal(t, "30 s", seconds(30*time.Second))
	assert.Equal(t, "180 ms", ms(180_200*time.Microsecond))
}

func TestATallyKeepsAFewTexts(t *testing.T) {
	var errors tally
	for i := range tallied + 5 {
		errors.add(string(rune('a' + i)))
		errors.add("a")
	}
	list := errors.list()
	require.Len(t, list, tallied+1)
	assert.Equal(t, "18 × a", list[0])
	assert.Equal(t, "and 5 others", list[tallied])
	assert.Equal(t, 2*(tallied+5), errors.total)
}
