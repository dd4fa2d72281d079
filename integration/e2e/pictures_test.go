//go:build pictures

package e2e

import (
	"cmp"
	"context"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// This file draws the pictures of the documentation, from what a real Jaeger
// and a real Prometheus answer about a run of the demo: make pictures.

// A minute of the demo, with a crowd of callers in the middle of it.
const (
	calm    = 25 * time.Second
	crowded = 15 * time.Second
)

func TestDrawPictures(t *testing.T) {
	docs := "../../docs"
	ctx, jaeger, service := collect(t)
	ctx, prom := scrape(ctx, t, find(t, "prometheus"), service)
	began := time.Now()
	pause(ctx, t, calm)
	leave := crowd(ctx, t, service, 10)
	pause(ctx, t, crowded)
	leave()
	pause(ctx, t, calm)

	drawDashboard(ctx, t, prom, v1.Range{Start: began, End: time.Now(), Step: 500 * time.Millisecond}, filepath.Join(docs, "dashboard.svg"))
	found, err := jaeger.traces(ctx, "GET /report", "pool.queue")
	require.NoError(t, atLeast(1, found, err))
	typical := slices.SortedFunc(slices.Values(found), func(a, b jaegerTrace) int {
		return cmp.Compare(a.span(t, "pool.queue").Duration, b.span(t, "pool.queue").Duration)
	})[len(found)/2]
	t.Logf("of %d traces that waited, the one in the middle:\n%s", len(found), typical.tree())
	drawTrace(t, typical, filepath.Join(docs, "trace.svg"))
}

func pause(ctx context.Context, t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-ctx.Done():
		t.Fatal(context.Cause(ctx))
	case <-time.After(d):
	}
}

// drawn are the panels of the dashboard that the picture shows.
var drawn = []string{"Connections against the limit", "Oldest lease and longest wait", "Acquire", "Query", "Share of acquire", "Leases reported, by class"}

func drawDashboard(ctx context.Context, t *testing.T, prom v1.API, during v1.Range, path string) {
	t.Helper()
	const columns, width, height = 2, 14 * vg.Centimeter, 7 * vg.Centimeter
	rows := len(drawn) / columns
	plots := make([][]*plot.Plot, rows)
	for i, title := range drawn {
		plots[i/columns] = append(plots[i/columns], drawPanel(ctx, t, prom, during, title))
	}
	canvas := vgsvg.New(columns*width, vg.Length(rows)*height)
	whole := draw.New(canvas)
	whole.FillPolygon(color.White, []vg.Point{{}, {X: whole.Max.X}, whole.Max, {Y: whole.Max.Y}})
	tiles := draw.Tiles{Rows: rows, Cols: columns, PadX: vg.Centimeter, PadY: vg.Centimeter / 2, PadTop: vg.Centimeter / 4, PadBottom: vg.Centimeter / 4, PadLeft: vg.Centimeter / 4, PadRight: vg.Centimeter / 4}
	for y, line := range plot.Align(plots, tiles, whole) {
		for x, place := range line {
			plots[y][x].Draw(place)
		}
	}
	file, err := os.Create(path)
	require.NoError(t, err)
	_, err = canvas.WriteTo(file)
	require.NoError(t, err)
	require.NoError(t, file.Close())
}

func drawPanel(ctx context.Context, t *testing.T, prom v1.API, during v1.Range, title string) *plot.Plot {
	t.Helper()
	panels := readDashboard(t).Panels
	i := slices.IndexFunc(panels, func(p panel) bool { return p.Title == title })
	require.GreaterOrEqual(t, i, 0, title)
	panel := panels[i]
	p := plot.New()
	p.Title.Text, p.Y.Label.Text, p.X.Label.Text = title, units[panel.FieldConfig.Defaults.Unit], "seconds of the run"
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	p.Legend.TextStyle.Font.Size = vg.Points(8)
	lines := 0
	for _, target := range panel.Targets {
		answer, _, err := prom.QueryRange(ctx, chosen.Replace(target.Expr), during)
		require.NoError(t, err)
		for _, series := range answer.(model.Matrix) {
			line, err := plotter.NewLine(points(series, during.Start))
			require.NoError(t, err)
			line.Color, line.Width = plotutil.SoftColors[lines], vg.Points(1.5)
			lines++
			p.Add(line)
			p.Legend.Add(legend(target.LegendFormat, series.Metric), line)
		}
	}
	p.Y.Max *= 1 + 0.11*float64(lines) // room for the legend
	return p
}

// units are Grafana's, as an axis says them.
var units = map[string]string{"s": "seconds", "percentunit": "share", "short": ""}

// points are the values that a series has, by seconds since start.
func points(series *model.SampleStream, start time.Time) (out plotter.XYs) {
	for _, v := range series.Values {
		if y := float64(v.Value); !math.IsNaN(y) {
			out = append(out, plotter.XY{X: v.Timestamp.Time().Sub(start).Seconds(), Y: y})
		}
	}
	return out
}

// legend fills in a legend's labels.
func legend(format string, labels model.Metric) string {
	return legendLabel.ReplaceAllStringFunc(format, func(label string) string {
		return string(labels[model.LabelName(strings.Trim(label, "{}"))])
	})
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
