//go:build pictures

package bench

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drawing"
)

// TestDrawWaits draws how long callers wait: make pictures. In docs/waits.svg each
// caller comes again at once, in docs/waits-open.svg callers come at random.
func TestDrawWaits(t *testing.T) {
	always := drawing.Axis{Name: "callers, each of whom comes again at once", Log: true, Ticks: []drawing.Tick{
		{At: 20, Label: "20"}, {At: 50}, {At: 100, Label: "100"}, {At: 200}, {At: 500}, {At: 1000, Label: "1000"},
	}}
	drawWaits(t, "../docs/waits.svg", always, milliseconds(0.5, 1, 10, 100, 1000),
		[]float64{20, 50, 100, 200, 500, 1000}, func(callers float64) arrival { return closed(int(callers)) })
	random := drawing.Axis{Name: "load, with callers who come at random", Ticks: []drawing.Tick{
		{At: 0.8, Label: "80 %"}, {At: 0.9, Label: "90 %"}, {At: 1, Label: "100 %"}, {At: 1.05},
	}}
	waits := milliseconds(0.01, 0.1, 1, 10, 100, 1000)
	waits.Ticks[0].Label = "none" // less than 10 µs
	drawWaits(t, "../docs/waits-open.svg", random, waits, []float64{0.8, 0.85, 0.9, 0.95, 1, 1.05}, open)
}

// milliseconds is an axis with these ticks.
func milliseconds(ticks ...float64) drawing.Axis {
	axis := drawing.Axis{Log: true}
	for _, tick := range ticks {
		axis.Ticks = append(axis.Ticks, drawing.Tick{At: tick, Label: fmt.Sprintf("%v ms", tick)})
	}
	return axis
}

func drawWaits(t *testing.T, file string, x, y drawing.Axis, loads []float64, of func(float64) arrival) {
	half, one := drawing.Panel{Title: "p50", Note: "half wait longer"}, drawing.Panel{Title: "p99", Note: "1 in 100 waits longer"}
	for _, pool := range slices.Backward(pools) { // sqllease comes first in all pictures
		p50, p99 := drawing.Line{Name: pool.name}, drawing.Line{Name: pool.name}
		for _, load := range loads {
			s := saturate(t, pool.open, of(load), services[1])
			p50.Points = append(p50.Points, drawing.Point{X: load, Y: s.percentile(0.5).Seconds() * 1000})
			p99.Points = append(p99.Points, drawing.Point{X: load, Y: s.percentile(0.99).Seconds() * 1000})
		}
		half.Lines, one.Lines = append(half.Lines, p50), append(one.Lines, p99)
	}
	picture := drawing.Lines{
		Heading: drawing.Heading{
			Title: "Waiting for one of 10 connections",
			Note:  "A caller holds a connection for 1 ms on average. With sqllease the longest waits are shorter, and the usual wait is longer.",
			Description: "Two charts beside each other, of sqllease and of database/sql alone. " +
				"Left, the median wait: that of sqllease is longer. Right, the wait that one call in a hundred exceeds: that of sqllease is shorter.",
		},
		X: x, Y: y, Panels: []drawing.Panel{half, one},
	}
	require.NoError(t, os.WriteFile(file, []byte(picture.SVG()), 0o644))
}
