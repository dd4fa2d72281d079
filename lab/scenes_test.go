package lab

import (
	"time"

	"github.com/sqllease/sqllease"
)

// scene is a load and a server.
type scene struct {
	name    string
	slower  func(n int) float64
	come    arrivals
	workers int     // in place of arrivals: so many come again at once
	work    lengths // on the server
	sleep   lengths // a wait there that costs it nothing
	unused  lengths
	goal    time.Duration // that 99 of 100 callers wait no longer
	long    time.Duration // the recording
	limits  []int         // that are recorded: too low, and too high
	tried   []int         // all that are measured
}

const ms = time.Millisecond

// quick is a server that does not slow down.
func quick(int) float64 { return 1 }

// known are the scenes of which one recording tells the limit.
var known = []scene{
	{name: "a query by primary key, 8 cores", slower: cores(8, 0.01), come: poisson(1000), work: exponential(6 * ms), goal: 20 * ms, limits: []int{8, 60}, tried: pictured},
	{name: "half a second of waiting", slower: quick, come: poisson(1000), sleep: constant(500 * ms), goal: 50 * ms, limits: []int{505, 1000}, tried: many},
	{name: "calls of one length", slower: gunther(0.02, 0.001), come: poisson(700), work: constant(10 * ms), goal: 5 * ms, limits: []int{10, 40}},
	{name: "calls of random length", slower: gunther(0.02, 0.001), come: poisson(600), work: exponential(10 * ms), goal: 10 * ms, limits: []int{9, 40}},
	{name: "no slowdown", slower: quick, come: poisson(1500), work: exponential(10 * ms), goal: 5 * ms, limits: []int{18, 60}},
	{name: "a few long calls (lognormal)", slower: gunther(0.01, 0.0005), come: poisson(800), work: lognormal(10*ms, 1.5), goal: 20 * ms, limits: []int{12, 50}},
	{name: "a few very long calls (Pareto)", slower: gunther(0.01, 0.0005), come: poisson(800), work: pareto(10*ms, 1.7), goal: 20 * ms, limits: []int{12, 50}},
	{name: "short calls and long ones", slower: gunther(0.01, 0.0005), come: poisson(800), work: either(3*ms, 100*ms, 0.07), goal: 20 * ms, limits: []int{12, 50}},
	{name: "bursts", slower: gunther(0.01, 0.0005), come: bursts(400, 1400, time.Second, 250*ms), work: exponential(10 * ms), goal: 20 * ms, limits: []int{14, 60}, long: 90 * time.Second, tried: bursty},
	{name: "bursts of long calls", slower: gunther(0.01, 0.0005), come: bursts(400, 1300, time.Second, 250*ms), work: lognormal(10*ms, 1), goal: 20 * ms, limits: []int{14, 60}, long: 90 * time.Second, tried: bursty},
	{name: "bursts, on a server that gets slow", slower: gunther(0.02, 0.002), come: bursts(250, 900, time.Second, 200*ms), work: exponential(10 * ms), goal: 50 * ms, limits: []int{11, 60}, long: 90 * time.Second, tried: bursty},
	{name: "arrivals from a file", slower: gunther(0.02, 0.0005), come: fromFile("testdata/arrivals.txt"), work: exponential(10 * ms), goal: 15 * ms, limits: []int{14, 50}, long: 300 * time.Second, tried: bursty},
	{name: "two thirds unused", slower: gunther(0.03, 0.001), come: poisson(400), work: exponential(8 * ms), unused: exponential(16 * ms), goal: 10 * ms, limits: []int{13, 50}},
}

// unknowable are the scenes of which no recording can tell it.
var unknowable = []scene{
	{name: "hardly any load", slower: quick, come: poisson(20), work: exponential(10 * ms), goal: 10 * ms, limits: []int{10}},
	{name: "nobody ever waits", slower: quick, come: regular(20 * ms), work: constant(10 * ms), goal: 10 * ms, limits: []int{10}},
	{name: "one short burst", slower: gunther(0.02, 0.001), come: oneBurst(150, 1500, 15*time.Second, 800*ms), work: exponential(10 * ms), goal: 10 * ms, limits: []int{20}},
	{name: "a load that grows", slower: gunther(0.02, 0.001), come: growing(200, 800), work: exponential(10 * ms), goal: 10 * ms, limits: []int{20}},
	{name: "a third of the connections that it needs", slower: gunther(0.01, 0.0005), come: bursts(400, 1400, time.Second, 250*ms), work: exponential(10 * ms), goal: 20 * ms, long: 90 * time.Second, limits: []int{8}},
	{name: "workers who ask again at once", slower: gunther(0.02, 0.001), workers: 40, work: exponential(10 * ms), goal: 10 * ms, limits: []int{10}},
	{name: "more than it can do", slower: gunther(0.02, 0.001), come: poisson(2000), work: exponential(10 * ms), goal: 10 * ms, limits: []int{10}},
}

// many are the limits that are tried for a load with hundreds of connections.
var many = []int{300, 400, 450, 480, 500, 510, 520, 530, 540, 560, 580, 600, 700, 800, 1000, 1500}

// bursty are those for loads of which it takes long to know.
var bursty = []int{11, 12, 13, 14, 16, 18, 20, 22, 25, 28, 32, 40, 60}

// pictured are those of a picture.
var pictured = append([]int{4, 5}, few...)

// few are those of all others. Neighbours are a step apart.
var few = []int{6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 22, 25, 28, 32, 36, 40, 50, 60, 80}

func (s scene) asked() sqllease.Goal { return sqllease.Goal{Quantile: 0.99, Wait: s.goal} }
