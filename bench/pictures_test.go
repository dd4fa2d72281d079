//go:build pictures

package bench

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// TestDrawWaits draws what callers wait for in docs/waits.svg: make pictures.
func TestDrawWaits(t *testing.T) {
	p := plot.New()
	p.Title.Text = "Waiting for one of 10 connections, held for 1 ms on average"
	p.X.Label.Text, p.Y.Label.Text = "callers, always", "milliseconds"
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for i, pool := range pools {
		var p99, p50 plotter.XYs
		for _, callers := range []int{20, 50, 100, 200, 500, 1000} {
			s := saturate(t, pool.open, closed(callers), services[1])
			p50 = append(p50, plotter.XY{X: float64(callers), Y: s.percentile(0.5).Seconds() * 1000})
			p99 = append(p99, plotter.XY{X: float64(callers), Y: s.percentile(0.99).Seconds() * 1000})
		}
		for _, line := range []struct {
			name   string
			points plotter.XYs
			dashes []vg.Length
		}{{pool.name + ", p99", p99, nil}, {pool.name + ", p50", p50, []vg.Length{vg.Points(4), vg.Points(3)}}} {
			l, points, err := plotter.NewLinePoints(line.points)
			require.NoError(t, err)
			l.Color, l.Width, l.Dashes = plotutil.SoftColors[2*i], vg.Points(2), line.dashes
			points.Color = l.Color
			p.Add(l, points)
			p.Legend.Add(line.name, l)
		}
	}
	require.NoError(t, p.Save(18*vg.Centimeter, 11*vg.Centimeter, "../docs/waits.svg"))
}
