package main

import (
	"fmt"
	"os"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// bare is the column of the driver without a wrapper.
const bare = "bare"

// shown are the wrappers that make spans, of which the picture shows what they
// cost over the bare driver.
var shown = []string{"sqllease", "xsam", "nhatthm", "uptrace"}

// picture draws a table: the time of each work, and its allocations.
func (t *table) picture(file string) error {
	const width, height, margin = 24 * vg.Centimeter, 9 * vg.Centimeter, 3 * vg.Millimeter
	time, err := t.bars("µs over the bare driver", func(c *cell) float64 { return slices.Min(c.times) * 1e6 })
	if err != nil {
		return err
	}
	allocs, err := t.bars("allocations over the bare driver", func(c *cell) float64 { return c.allocs })
	if err != nil {
		return err
	}
	canvas := vgsvg.New(width, height)
	plots := [][]*plot.Plot{{time, allocs}}
	tiles := draw.Tiles{Rows: 1, Cols: 2, PadX: 2 * vg.Centimeter, PadTop: margin, PadRight: vg.Centimeter, PadLeft: margin, PadBottom: margin}
	for i, at := range plot.Align(plots, tiles, draw.New(canvas))[0] {
		plots[0][i].Draw(at)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(out); err != nil {
		return err
	}
	return out.Close()
}

// bars draws one measure of the works, side by side.
func (t *table) bars(unit string, of func(*cell) float64) (*plot.Plot, error) {
	const thick = 3 * vg.Millimeter
	p := plot.New()
	p.Y.Label.Text, p.Y.Min = unit, 0
	p.Legend.Top, p.Legend.Left = true, true
	p.NominalX(t.works...)
	for i, wrapper := range shown {
		var values plotter.Values
		for _, work := range t.works {
			c, without := t.cells[[2]string{work, wrapper}], t.cells[[2]string{work, bare}]
			if c == nil || without == nil {
				return nil, fmt.Errorf("%s: there is no %s of %s and of %s", t.title, work, wrapper, bare)
			}
			values = append(values, of(c)-of(without))
		}
		chart, err := plotter.NewBarChart(values, thick)
		if err != nil {
			return nil, err
		}
		chart.Color, chart.LineStyle.Width = plotutil.SoftColors[i], 0
		chart.Offset = (vg.Length(i) - vg.Length(len(shown)-1)/2) * thick
		p.Add(chart)
		p.Legend.Add(wrapper, chart)
	}
	return p, nil
}
