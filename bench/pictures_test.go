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

// TestDrawWaits draws what callers wait for in docs/waits.svg, where they come
// again at once, and in docs/waits-open.svg, where they come at random: make pictures.
func TestDrawWaits(t *testing.T) {
	drawWaits(t, "../docs/waits.svg", "callers, always", plot.LogScale{}, []float64{20, 50, 100, 200, 500, 1000},
		func(callers float64) arrival { return closed(int(callers)) })
	drawWaits(t, "../docs/waits-open.svg", "load, callers at random; 1: all that the connections can serve", plot.LinearScale{},
		[]float64{0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.05}, open)
}

func drawWaits(t *testing.T, file, axis string, scale plot.Normalizer, loads []float64, of func(float64) arrival) {
	const least = 0.01 // milliseconds; what is less is none
	p := plot.New()
	p.Title.Text = "Waiting for one of 10 connections, held for 1 ms on average"
	p.X.Label.Text, p.Y.Label.Text = axis, "milliseconds"
	p.X.Scale, p.Y.Scale = scale, plot.LogScale{}
	p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	if _, ok := scale.(plot.LogScale); ok {
		p.X.Tick.Marker = plot.LogTicks{Prec: -1}
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for i, pool := range pools {
		var p99, p50 plotter.XYs
		for _, load := range loads {
			s := saturate(t, pool.open, of(load), services[1])
			p50 = append(p50, plotter.XY{X: load, Y: max(least, s.percentile(0.5).Seconds()*1000)})
			p99 = append(p99, plotter.XY{X: load, Y: max(least, s.percentile(0.99).Seconds()*1000)})
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
	require.NoError(t, p.Save(18*vg.Centimeter, 11*vg.Centimeter, file))
}
