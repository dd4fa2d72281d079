//go:build pictures

package e2e

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drawing"
)

// This file draws the trace of the documentation, from what a real Jaeger
// answers about a run of the demo: make pictures.

func TestDrawTrace(t *testing.T) {
	ctx, jaeger, service := collect(t)
	crowd(ctx, t, service, 10)
	var found []jaegerTrace
	eventually(ctx, t, func() (err error) {
		found, err = jaeger.traces(ctx, "GET /report", "pool.queue")
		return atLeast(waiting, found, err)
	})
	typical := slices.SortedFunc(slices.Values(found), func(a, b jaegerTrace) int {
		return cmp.Compare(a.span(t, "pool.queue").Duration, b.span(t, "pool.queue").Duration)
	})[len(found)/2]
	t.Logf("of %d traces that waited, the one in the middle:\n%s", len(found), typical.tree())
	drawTrace(t, typical, drawing.Heading{
		Title:       "A request that waits for a connection",
		Description: "A trace: the request, below it pool.acquire with pool.queue, and after these the SELECT.",
	}, "../../docs/trace.svg")
}

func TestDrawTransaction(t *testing.T) {
	ctx, jaeger, _ := collect(t)
	var found []jaegerTrace
	eventually(ctx, t, func() (err error) {
		found, err = jaeger.traces(ctx, "POST /orders", "commit")
		return atLeast(waiting, found, err)
	})
	// The shortest is the one that the machine disturbed least.
	quiet := slices.MinFunc(found, func(a, b jaegerTrace) int {
		return cmp.Compare(a.span(t, "POST /orders").Duration, b.span(t, "POST /orders").Duration)
	})
	t.Logf("of %d transactions, the shortest:\n%s", len(found), quiet.tree())
	drawTrace(t, quiet, drawing.Heading{
		Title:       "A request with a transaction",
		Description: "A trace: the request, below it the transaction, and below that begin, the prepared statements and commit, one after the other.",
	}, "../../docs/trace-transaction.svg")
}

// drawTrace draws the spans of a trace, each under what it is a child of, in order of time.
func drawTrace(t *testing.T, trace jaegerTrace, heading drawing.Heading, path string) {
	t.Helper()
	picture := drawing.Trace{Heading: heading}
	trace.walk(func(s span, depth int) {
		drawn := drawing.Span{Name: s.OperationName, Depth: depth, Start: micros(s.StartTime), End: micros(s.end())}
		drawn.Color, drawn.Whole = look(s.OperationName, depth)
		picture.Spans = append(picture.Spans, drawn)
	})
	require.NoError(t, os.WriteFile(path, []byte(picture.SVG()), 0o644))
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// look is how a span is drawn: waits are orange and calls are blue. What consists
// of the spans below it is paler.
func look(name string, depth int) (color drawing.Color, whole bool) {
	switch {
	case depth == 0:
		return drawing.Grey, true
	case name == "pool.acquire":
		return drawing.Orange, true
	case strings.HasPrefix(name, "pool."):
		return drawing.Orange, false
	default:
		return drawing.Blue, name == "transaction"
	}
}
