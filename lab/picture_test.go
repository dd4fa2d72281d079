package lab

import (
	"fmt"
	"testing"
	"time"

	"github.com/sqllease/sqllease/internal/drawing"
)

// picture is that of a scene: how long callers take with each limit, as measured, and as the advisor
// finds it from the last of the scene's recordings.
type picture struct {
	scene, file string
	title, note string
	x, y        drawing.Axis
}

var pictures = []picture{
	{
		scene: "a query by primary key, 8 cores", file: "../docs/sizing-cores.svg",
		title: "1000 queries a second, on a server with 8 cores",
		note: "Shortest with about as many connections as cores. Above 40, the server sooner or later has more to do than it can, " +
			"and never recovers. In the recording it did not.",
		x: axis("connections", 4, 6, 8, 12, 20, 40, 80), y: milliseconds(5, 10, 100, 1000, 10_000),
	},
	{
		scene: "half a second of waiting", file: "../docs/sizing-waiting.svg",
		title: "1000 queries a second, each of which waits half a second",
		note:  "Waiting costs the server nothing. With fewer than 500 connections callers queue, and with more nothing changes.",
		x:     axis("connections", 300, 400, 500, 700, 1000, 1500), y: milliseconds(400, 500, 1000, 10_000),
	},
}

func axis(name string, ticks ...float64) drawing.Axis {
	a := drawing.Axis{Name: name, Log: true}
	for _, at := range ticks {
		a.Ticks = append(a.Ticks, drawing.Tick{At: at, Label: fmt.Sprint(at)})
	}
	return a
}

func milliseconds(ticks ...float64) drawing.Axis {
	a := drawing.Axis{Log: true}
	for _, at := range ticks {
		label := fmt.Sprintf("%v ms", at)
		if at >= 1000 {
			label = fmt.Sprintf("%v s", at/1000)
		}
		a.Ticks = append(a.Ticks, drawing.Tick{At: at, Label: label})
	}
	return a
}

// draw draws the pictures.
func draw(t *testing.T, outcomes []outcome) {
	for _, p := range pictures {
		for _, o := range outcomes {
			if o.name == p.scene {
				draws(t, p.file, p.of(o))
			}
		}
	}
}

func (p picture) of(o outcome) string {
	const apart = 1.05 // so that points do not touch each other
	measured, replayed := drawing.Line{Name: "measured"}, drawing.Line{Name: "from one recording"}
	for k, limit := range o.measured.limits {
		measured.Points = append(measured.Points, point(limit, o.measured.means[k]))
	}
	last := o.advice[len(o.advice)-1]
	for _, at := range last.Curve {
		if n := len(replayed.Points); float64(at.Limit) >= p.x.Ticks[0].At && (n == 0 || float64(at.Limit) > apart*replayed.Points[n-1].X) {
			replayed.Points = append(replayed.Points, point(at.Limit, at.Response))
		}
	}
	return drawing.Lines{
		Heading: drawing.Heading{
			Title: p.title, Note: p.note + fmt.Sprintf(" Advice: %d.", last.Limit),
			Description: "The mean time by the number of connections, as it was measured with each, and as the advisor found it from one recording. " + p.note,
		},
		X: p.x, Y: p.y, Panels: []drawing.Panel{{Title: "Mean time of a query, with the wait for its connection", Lines: []drawing.Line{measured, replayed}}},
	}.SVG()
}

func point(limit int, took time.Duration) drawing.Point {
	return drawing.Point{X: float64(limit), Y: took.Seconds() * 1000}
}
