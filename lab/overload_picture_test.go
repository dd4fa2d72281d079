package lab

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drawing"
)

// inMilliseconds are the waits of 99 of 100, of some of all.
func inMilliseconds(all []waits, some []int) (out []float64) {
	for _, i := range some {
		out = append(out, all[i].p99.Seconds()*1000)
	}
	return out
}

// drawMixed draws how long short and long work waits.
func drawMixed(t *testing.T, groups []string, measures ...drawing.Measure) {
	draws(t, "../docs/lanes-mixed.svg", drawing.Bars{
		Heading: drawing.Heading{
			Title: "How long short work waits beside long work",
			Note: "95 of 100 calls take 2 ms, and 5 of 100 take 500 ms. There are ten connections. " +
				"The figures are the waits that 99 of 100 do not exceed.",
			Description: "Bars: the wait for a connection that 99 of 100 calls do not exceed, for short and for long work, at three loads. " +
				"In one pool, short work waits for hundreds of milliseconds. With a pool of its own, or with a lane, it waits for some milliseconds, " +
				"and long work waits somewhat longer than in one pool.",
		},
		Series: []string{"database/sql", "sqllease", "two pools: 1 and 9", "lane: Max 9"},
		Groups: groups, Measures: measures,
	}.SVG())
}

// drawFlood draws what callers get while there are too many of them.
func drawFlood(t *testing.T, of [][]flooded) {
	x := drawing.Axis{Name: "time", Ticks: []drawing.Tick{
		{At: 0, Label: "0"}, {At: 30}, {At: 60, Label: "1 min"}, {At: 90}, {At: 120, Label: "2 min"}, {At: 150}, {At: 180, Label: "3 min"},
	}}
	const note = "800 callers come in a second, 1,500 in the second minute, and 800 again. The pool can serve 1,000. Each has one second."
	draws(t, "../docs/overload-goodput.svg", drawing.Lines{
		Heading: drawing.Heading{
			Title: "Callers served in time", Note: note,
			Description: "Lines: how many callers are served in time in each second of three minutes. In the minute of overload, with QueueTarget and with database/sql alone " +
				"it is all that the pool can serve. With sqllease without a limit it falls to a small part of that.",
		},
		X: x, Y: drawing.Axis{Ticks: []drawing.Tick{{At: 0, Label: "0"}, {At: 250}, {At: 500, Label: "500/s"}, {At: 750}, {At: 1000, Label: "1,000/s"}, {At: 1250}, {At: 1500, Label: "1,500/s"}}},
		Panels: []drawing.Panel{{Title: "In each second, averaged over 6 s", Lines: lines(of, func(o flooded) []float64 { return o.seconds })}},
	}.SVG())
	draws(t, "../docs/overload-response.svg", drawing.Lines{
		Heading: drawing.Heading{
			Title: "How long those take who are served", Note: note,
			Description: "Lines: the time within which 99 of 100 callers are served who are served at all. In the minute of overload it is a second with database/sql alone and " +
				"with sqllease without a limit, and some 60 ms with QueueTarget.",
		},
		X: x, Y: milliseconds(10, 20, 50, 100, 200, 500, 1000, 2000),
		Panels: []drawing.Panel{{Title: "99 of 100 within, averaged over 6 s", Lines: lines(of, func(o flooded) []float64 { return o.slow })}},
	}.SVG())
}

// lines are those of three pools.
func lines(of [][]flooded, figure func(flooded) []float64) (all []drawing.Line) {
	const width = 6
	for k, v := range controls {
		name := map[string]string{alone.name: "database/sql", plain.name: "sqllease", targeted(50 * ms).name: "QueueTarget"}[v.name]
		if name == "" {
			continue
		}
		values := figure(of[k][0])
		line := drawing.Line{Name: name}
		for at := 0; at < int(3*time.Minute/time.Second); at += width {
			line.Points = append(line.Points, drawing.Point{X: float64(at) + width/2, Y: mean(values[at : at+width])})
		}
		all = append(all, line)
	}
	return []drawing.Line{all[2], all[0], all[1]} // QueueTarget is drawn above the others
}

func draws(t *testing.T, file, svg string) {
	require.NoError(t, os.WriteFile(file, []byte(svg), 0o644)) //nolint:gosec // it is a document
}
