package advisor

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// pages and reports are a load of two lanes: pages of 10 ms, and reports of 300 ms, of which three
// at most may have a connection.
var pagesAndReports = loadOf{
	rate: poisson(450), work: either(0.01, 0.3, 0.02), // reports take 2.7 connections
	lane: func(c caller) int {
		if c.work > 0.1 {
			return 1
		}
		return 0
	},
}

func TestAReplayServesLanesAsThePoolDoes(t *testing.T) {
	for name, lanes := range map[string][]Lane{
		"Max":             {{}, {Max: 3}},
		"Reserve":         {{}, {Reserve: 2}},
		"Reserve for all": {{Reserve: 3}, {Reserve: 2}},
		"both":            {{Reserve: 2}, {Max: 4, Reserve: 1}},
		"too much":        {{}, {Reserve: 9}},
	} {
		t.Run(name, func(t *testing.T) {
			w := world{slower: steady, lanes: lanes}
			recording := recorded(w, pagesAndReports.callers(1, 10), 9)
			recording.Lanes = lanes
			l := newLoad(recording)
			r := newReplay(l)
			r.run(9, law{}, l.work(law{}))
			waited := 0
			for i := range l.items {
				assert.InDelta(t, l.items[i].wait(), r.waits[i], float64(time.Microsecond))
				if r.waits[i] > 0 {
					waited++
				}
			}
			assert.Greater(t, waited, len(l.items)/20, "else it shows nothing")
		})
	}
}

// Reports that wait for their lane's Max would ask for a limit that no pool has.
func TestWaitsForAMaxDoNotCount(t *testing.T) {
	lanes := []Lane{{}, {Max: 3}}
	w := world{slower: steady, lanes: lanes}
	goal := Goal{Wait: 5 * time.Millisecond}
	best, _ := measure(w, pagesAndReports.callers(99, 20), goal, simulated).best(goal)
	for _, limit := range []int{9, 40} {
		recording := recorded(w, pagesAndReports.callers(7, 20), limit)
		recording.Lanes = lanes
		a := Advise(recording, goal)
		said := fmt.Sprintf("recorded at %d: truth %d; advice %d (%d to %d), %q", limit, best, a.Limit, a.Low, a.High, a.Refused)
		t.Log(said)
		assert.Empty(t, a.Refused, said)
		assert.True(t, a.Low <= best && best <= a.High || max(step(best)-step(a.Limit), step(a.Limit)-step(best)) <= 1, said)
		assert.Greater(t, a.Limited, 100)
		recording.Lanes = nil
		without := Advise(recording, goal)
		assert.True(t, without.Refused != "" || without.Limit > a.Limit || !without.Met, "else it shows nothing: %d %q", without.Limit, without.Refused)
	}
}
