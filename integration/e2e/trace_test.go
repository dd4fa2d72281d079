//go:build pictures

package e2e

import (
	"cmp"
	"os"
	"slices"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/require"
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
	drawTrace(t, typical, "../../docs/trace.svg")
}

func TestDrawTransaction(t *testing.T) {
	ctx, jaeger, _ := collect(t)
	var found []jaegerTrace
	eventually(ctx, t, func() (err error) {
		found, err = jaeger.traces(ctx, "POST /orders", "commit")
		return atLeast(1, found, err)
	})
	t.Logf("a transaction:\n%s", found[0].tree())
	drawTrace(t, found[0], "../../docs/trace-transaction.svg")
}

// drawTrace draws the spans of a trace as bars.
func drawTrace(t *testing.T, trace jaegerTrace, path string) {
	t.Helper()
	file, err := os.Create(path)
	require.NoError(t, err)
	all := bars(t, trace)
	require.NoError(t, waterfall.Execute(file, map[string]any{"Bars": all, "Height": 2*margin + line*len(all)}))
	require.NoError(t, file.Close())
}

// The measures of the picture, in pixels.
const (
	line   = 32
	margin = 14
	names  = 340 // what the names take
	letter = 34  // what a name may have of them
	longer = 540 // the bar of the request
)

// bar is a span in the picture.
type bar struct {
	Top, Indent, Left, Width int
	Name, Took, Color        string
}

// Baseline, Bar and End place its text and its bar.
func (b bar) Baseline() int { return b.Top + 20 }
func (b bar) Bar() int      { return b.Top + 5 }
func (b bar) End() int      { return b.Left + b.Width + 6 }

// barColors are those of spans that are no call: the wait, and what the calls are in.
var barColors = map[string]string{"GET /report": "#9aa5b1", "POST /orders": "#9aa5b1", "transaction": "#b9a0d4", "pool.acquire": "#e07b39", "pool.queue": "#f2b48c"}

// bars places the spans of a trace: each under what it is a child of, in order
// of time, and as long as it took.
func bars(t *testing.T, trace jaegerTrace) (out []bar) {
	t.Helper()
	var whole *span
	trace.walk(func(s span, depth int) {
		if whole == nil {
			whole = &s
		}
		out = append(out, bar{
			Top: margin + line*len(out), Indent: margin + 18*depth,
			Left:  names + int((s.StartTime-whole.StartTime)*longer/whole.Duration),
			Width: max(int(s.Duration*longer/whole.Duration), 1),
			Name:  shown(s.OperationName, letter-2*depth), Took: s.took().Round(100 * time.Microsecond).String(),
			Color: cmp.Or(barColors[s.OperationName], "#3d7ea6"),
		})
	})
	return out
}

// shown is a name, cut where there is no more room.
func shown(name string, most int) string {
	if len(name) > most {
		return name[:most-1] + "…"
	}
	return name
}

var waterfall = template.Must(template.New("waterfall").Parse(
	`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 970 {{.Height}}" font-family="sans-serif" font-size="14">
<style>
.back { fill: #ffffff } .name { fill: #1f2933 } .took { fill: #52606d }
@media (prefers-color-scheme: dark) { .back { fill: #161b22 } .name { fill: #e6edf3 } .took { fill: #9da7b3 } }
</style>
<rect class="back" width="100%" height="100%" rx="6"/>
{{range .Bars}}<text class="name" x="{{.Indent}}" y="{{.Baseline}}">{{.Name}}</text>
<rect x="{{.Left}}" y="{{.Bar}}" width="{{.Width}}" height="22" rx="2" fill="{{.Color}}"/>
<text class="took" x="{{.End}}" y="{{.Baseline}}">{{.Took}}</text>
{{end}}</svg>
`))
