package main

import (
	"fmt"

	"github.com/sqllease/sqllease/internal/drawing"
)

// loads are what comes to a pool of ten connections, with a picture of it.
type loads struct {
	axis     drawing.Axis
	waits    drawing.Axis
	inTable  []wait
	pictured []wait
}

var always = loads{
	axis: drawing.Axis{Name: "callers, each of whom comes again at once", Log: true, Ticks: []drawing.Tick{
		{At: 20, Label: "20"}, {At: 50}, {At: 100, Label: "100"}, {At: 200}, {At: 500}, {At: 1000, Label: "1000"},
	}},
	waits:    milliseconds(0.5, 1, 10, 100, 1000),
	inTable:  callers(20, 100, 1000),
	pictured: callers(20, 50, 100, 200, 500, 1000),
}

var atRandom = loads{
	axis: drawing.Axis{Name: "load, with callers who come at random", Ticks: []drawing.Tick{
		{At: 0.8, Label: "80 %"}, {At: 0.9, Label: "90 %"}, {At: 1, Label: "100 %"}, {At: 1.05},
	}},
	waits:    upToNone(milliseconds(0.01, 0.1, 1, 10, 100, 1000)),
	inTable:  ofLoad(50, 80, 95, 105),
	pictured: ofLoad(80, 85, 90, 95, 100, 105),
}

func callers(counts ...int) (all []wait) {
	for _, n := range counts {
		all = append(all, wait{callers: n})
	}
	return all
}

func ofLoad(shares ...int) (all []wait) {
	for _, n := range shares {
		all = append(all, wait{load: n})
	}
	return all
}

// milliseconds is an axis with these ticks.
func milliseconds(ticks ...float64) drawing.Axis {
	axis := drawing.Axis{Log: true}
	for _, tick := range ticks {
		axis.Ticks = append(axis.Ticks, drawing.Tick{At: tick, Label: fmt.Sprintf("%v ms", tick)})
	}
	return axis
}

// upToNone is an axis on which less than the first tick is as good as nothing.
func upToNone(axis drawing.Axis) drawing.Axis {
	axis.Ticks[0].Label = "none"
	return axis
}

// at is how long callers wait in a pool.
func (w wait) at(f *figures, pool named, which string) float64 {
	w.pool = pool.key
	return f.millis(w, which)
}

// said is the load as a table says it.
func (w wait) said() string {
	if w.load > 0 {
		return fmt.Sprintf("%d %%", w.load)
	}
	return fmt.Sprint(w.callers)
}

// waitTables are the waits under saturation.
func waitTables(f *figures) map[string]string {
	return map[string]string{
		"waits":            waitTable(f, "callers", "exponential", always.inTable),
		"waits heavy tail": waitTable(f, "callers", "heavy-tail", always.inTable),
		"waits at random":  waitTable(f, "load", "exponential", atRandom.inTable),
		"waits in time":    inTime(f),
	}
}

// waitTable has a row of each load.
func waitTable(f *figures, what, hold string, all []wait) string {
	t := table{columns: []string{"ms, by " + what, "p50, database/sql alone", "p50, sqllease", "p99, database/sql alone", "p99, sqllease"}}
	for _, w := range all {
		w.hold = hold
		t.row(w.said(), waited(w.at(f, bare, "p50")), waited(w.at(f, ours, "p50")), waited(w.at(f, bare, "p99")), waited(w.at(f, ours, "p99")))
	}
	return t.String()
}

// inTime is what was measured in real time.
func inTime(f *figures) string {
	t := table{columns: []string{"pool", "µs of a call", "p50, ms", "p99, ms", "longest, ms"}}
	for _, pool := range []named{bare, ours} {
		name := "Saturated/" + pool.key
		t.row(pool.name, whole(f.of(name, "ns/op")/1000), waited(f.of(name, "p50-wait-ms")),
			waited(f.of(name, "p99-wait-ms")), waited(f.of(name, "max-wait-ms")))
	}
	return t.String()
}

// drawWaits draws the waits of both pools in two panels.
func drawWaits(f *figures, of loads) string {
	half, one := drawing.Panel{Title: "p50", Note: "half wait longer"}, drawing.Panel{Title: "p99", Note: "1 in 100 waits longer"}
	for _, pool := range []named{ours, {bare.key, "database/sql"}} {
		p50, p99 := drawing.Line{Name: pool.name}, drawing.Line{Name: pool.name}
		for _, w := range of.pictured {
			x := max(float64(w.callers), float64(w.load)/100)
			p50.Points = append(p50.Points, drawing.Point{X: x, Y: w.at(f, pool, "p50")})
			p99.Points = append(p99.Points, drawing.Point{X: x, Y: w.at(f, pool, "p99")})
		}
		half.Lines, one.Lines = append(half.Lines, p50), append(one.Lines, p99)
	}
	return drawing.Lines{
		Heading: drawing.Heading{
			Title: "Waiting for one of 10 connections",
			Note:  "A caller holds a connection for 1 ms on average. With sqllease the longest waits are shorter, and the usual wait is longer.",
			Description: "Two charts beside each other, of sqllease and of database/sql alone. " +
				"Left, the median wait: that of sqllease is longer. Right, the wait that one call in a hundred exceeds: that of sqllease is shorter.",
		},
		X: of.axis, Y: of.waits, Panels: []drawing.Panel{half, one},
	}.SVG()
}
