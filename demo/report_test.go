package main

import (
	"bytes"
	"context"
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
	assert.Equal(t, 500500*time.Millisecond, d.sum)
}

func TestPercentilesOfFewAndOfNone(t *testing.T) {
	var d durations
	assert.Zero(t, d.percentile(0.99))

	d.add(0)
	assert.Equal(t, "0.0", ms(d.percentile(0.99)), "a wait of nothing is nothing")

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
	assert.Equal(t, "0.0", ms(d.percentile(0.50)))
	assert.InEpsilon(t, 40*time.Millisecond, d.percentile(0.99), 0.006)
}

func TestSharesAreOfTheTimeOfAllRequests(t *testing.T) {
	var f figures
	f.add(100*time.Millisecond, 60*time.Millisecond, 30*time.Millisecond)
	f.add(300*time.Millisecond, 0, 210*time.Millisecond)
	waiting, querying, other := f.shares()
	assert.InDelta(t, 15, waiting, 1e-9)
	assert.InDelta(t, 60, querying, 1e-9)
	assert.InDelta(t, 25, other, 1e-9)

	waiting, querying, other = new(figures).shares()
	assert.Zero(t, waiting+querying+other)
}

func TestSpansAreFoldedIntoTheirRequest(t *testing.T) {
	fold := newSpanFold()
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

	figures := fold.snapshot()
	require.Len(t, figures, 1)
	f := figures["GET /orders"]
	assert.Equal(t, 20*time.Millisecond, f.total.sum)
	assert.Equal(t, 4*time.Millisecond, f.wait.sum)
	assert.Equal(t, 6*time.Millisecond, f.querying.sum)
	assert.Empty(t, fold.open, "nothing is kept of a request that is over")
}

// good is a report with nothing wrong in it.
func good() *report {
	return &report{
		endpoints: map[string]*figures{"GET /products/{id}": {}},
		stats: sqllease.Stats{
			Limit: 8, IdleLimit: 3 * time.Second, Lifetime: 2500 * time.Millisecond,
			Closed: sqllease.ClosedStats{Expired: 40},
		},
		cuts: 1, cutsSeen: true,
		counts:    counts{sent: 1000, refused: []time.Time{{}}},
		leakDue:   1,
		leaks:     []leakSite{{place: "demo/app.go:150 main.(*shop).export", count: 1, first: sqllease.Leak{Class: sqllease.ClassUnused}}},
		whole:     true,
		idleLimit: 3 * time.Second,
	}
}

func TestTheReportSeesWhatIsWrong(t *testing.T) {
	require.Empty(t, good().wrong())

	for name, change := range map[string]func(*report){
		"a request failed":           func(r *report) { r.counts.failed = 1 },
		"a leak was not found":       func(r *report) { r.leakDue = 2 },
		"a leak was found elsewhere": func(r *report) { r.leaks[0].place = "demo/app.go:60 main.(*shop).orders" },
		"a leak was taken for slow":  func(r *report) { r.leaks[0].first.Class = sqllease.ClassBusy },
		"nothing leaked":             func(r *report) { r.leakDue = 0 },
		"nothing was retired":        func(r *report) { r.stats.Closed.Expired = 0 },
		"a session was cut":          func(r *report) { r.cuts = 2 },
		"a session was dead":         func(r *report) { r.stats.Closed.Cut = 1 },
		"no idle limit was found":    func(r *report) { r.stats.IdleLimit = 0 },
		"a library logged an error":  func(r *report) { r.logged = []string{"1 × MySQL driver: unexpected EOF"} },
	} {
		r := good()
		change(r)
		assert.Len(t, r.wrong(), 1, name)
	}
}

func TestAnInterruptedRunNeedsNotHaveSeenItAll(t *testing.T) {
	r := good()
	r.whole, r.leakDue, r.leaks, r.stats.Closed.Expired = false, 0, nil, 0
	assert.Empty(t, r.wrong())
}

func TestTheReportFitsAHundredColumns(t *testing.T) {
	r := good()
	f := r.endpoints["GET /products/{id}"]
	for range 100_000 {
		f.add(20*time.Second, 9999*time.Millisecond, 9999*time.Millisecond)
	}
	var out bytes.Buffer
	r.printEndpoints(&out)
	r.printSessions(&out)
	printList(&out, "Right", r.right())
	for _, line := range append(strings.Split(out.String(), "\n"), progressHeader) {
		assert.LessOrEqual(t, utf8.RuneCountInString(line), 100, line)
	}
}

func TestLeaksAreFoldedByPlace(t *testing.T) {
	var b leakBook
	b.add(sqllease.Leak{Class: sqllease.ClassBusy})
	b.add(sqllease.Leak{Lease: sqllease.Lease{ID: 1}, Class: sqllease.ClassUnused})
	b.add(sqllease.Leak{Lease: sqllease.Lease{ID: 2}, Class: sqllease.ClassUnused})
	b.add(sqllease.Leak{Lease: sqllease.Lease{ID: 2}, Class: sqllease.ClassProven})
	b.add(sqllease.Leak{Class: sqllease.ClassUnused, Returned: true})
	list := b.list()
	require.Len(t, list, 2)
	assert.Equal(t, 2, list[0].count)
	assert.Equal(t, sqllease.ClassUnused, list[0].first.Class)
	assert.Equal(t, 3, b.count())
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
