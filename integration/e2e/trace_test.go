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
	names  = 270 // what the names take
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

var barColors = map[string]string{"GET /report": "#9aa5b1", "pool.acquire": "#e07b39", "pool.queue": "#f2b48c"}

// bars places the spans of a trace: each under what it is a child of, in order
// of time, and as long as it took.
func bars(t *testing.T, trace jaegerTrace) (out []bar) {
	t.Helper()
	whole := trace.span(t, "GET /report")
	trace.walk(func(s span, depth int) {
		out = append(out, bar{
			Top: margin + line*len(out), Indent: margin + 18*depth,
			Left:  names + int((s.StartTime-whole.StartTime)*longer/whole.Duration),
			Width: max(int(s.Duration*longer/whole.Duration), 1),
			Name:  s.OperationName, Took: s.took().Round(100 * time.Microsecond).String(),
			Color: cmp.Or(barColors[s.OperationName], "#3d7ea6"),
		})
	})
	return out
}

var waterfall = template.Must(template.New("waterfall").Parse(
	`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {{.Height}}" font-family="sans-serif" font-size="14">
<rect width="100%" height="100%" fill="#ffffff"/>
{{range .Bars}}<text x="{{.Indent}}" y="{{.Baseline}}">{{.Name}}</text>
<rect x="{{.Left}}" y="{{.Bar}}" width="{{.Width}}" height="22" fill="{{.Color}}"/>
<text x="{{.End}}" y="{{.Baseline}}" fill="#52606d">{{.Took}}</text>
{{end}}</svg>
`))
