package lab

import (
	"bufio"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

// arrivals are the times at which callers come.
type arrivals func(r *rand.Rand, long time.Duration) []time.Duration

// poisson lets them come at random, so many in a second.
func poisson(rate float64) arrivals {
	return varying(func(*rand.Rand) func(float64) float64 { return func(float64) float64 { return rate } })
}

// bursts lets them come at random, at two rates in turn, each for a random time.
func bursts(calm, burst float64, calmFor, burstFor time.Duration) arrivals {
	return varying(func(r *rand.Rand) func(float64) float64 {
		until, in := 0.0, true
		return func(now float64) float64 {
			for now >= until {
				in = !in
				mean := calmFor
				if in {
					mean = burstFor
				}
				until += r.ExpFloat64() * mean.Seconds()
			}
			if in {
				return burst
			}
			return calm
		}
	})
}

// growing lets more and more of them come.
func growing(from, to float64) arrivals {
	return func(r *rand.Rand, long time.Duration) []time.Duration {
		return varying(func(*rand.Rand) func(float64) float64 {
			return func(now float64) float64 { return from + (to-from)*now/long.Seconds() }
		})(r, long)
	}
}

// oneBurst lets few come, and once many.
func oneBurst(calm, burst float64, at, lasts time.Duration) arrivals {
	return varying(func(*rand.Rand) func(float64) float64 {
		return func(now float64) float64 {
			if now >= at.Seconds() && now < (at+lasts).Seconds() {
				return burst
			}
			return calm
		}
	})
}

// regular lets them come one after the other, at equal distances.
func regular(every time.Duration) arrivals {
	return func(_ *rand.Rand, long time.Duration) (all []time.Duration) {
		for at := every; at < long; at += every {
			all = append(all, at)
		}
		return all
	}
}

// varying lets them come at a rate that is asked for at each arrival.
func varying(of func(r *rand.Rand) func(now float64) float64) arrivals {
	return func(r *rand.Rand, long time.Duration) (all []time.Duration) {
		rate := of(r)
		for now := 0.0; ; {
			now += r.ExpFloat64() / rate(now)
			if now >= long.Seconds() {
				return all
			}
			all = append(all, seconds(now))
		}
	}
}

// fromFile lets them come as a file says: a line has how many come in one twentieth of a second.
// The seed chooses where in it to begin; it begins again when it ends.
func fromFile(path string) arrivals {
	const each = 50 * time.Millisecond
	return func(r *rand.Rand, long time.Duration) (all []time.Duration) {
		counts := read(path)
		line := r.IntN(len(counts))
		for at := time.Duration(0); at < long; at += each {
			n := counts[line%len(counts)]
			for i := range n {
				all = append(all, at+each*time.Duration(i)/time.Duration(n))
			}
			line++
		}
		return all
	}
}

func read(path string) (counts []int) {
	file, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			panic(err)
		}
		counts = append(counts, n)
	}
	return counts
}

// lengths draws how long something takes.
type lengths func(r *rand.Rand) time.Duration

func constant(d time.Duration) lengths { return func(*rand.Rand) time.Duration { return d } }

func exponential(mean time.Duration) lengths {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(mean)) }
}

// lognormal has a mean, and a spread of its logarithm.
func lognormal(mean time.Duration, spread float64) lengths {
	return func(r *rand.Rand) time.Duration {
		return time.Duration(float64(mean) * math.Exp(spread*r.NormFloat64()-spread*spread/2))
	}
}

// pareto has a mean, and a tail with that exponent.
func pareto(mean time.Duration, tail float64) lengths {
	return func(r *rand.Rand) time.Duration {
		return time.Duration(float64(mean) * (tail - 1) / tail * math.Pow(1-r.Float64(), -1/tail))
	}
}

// either is long for a share of all.
func either(short, long time.Duration, share float64) lengths {
	return func(r *rand.Rand) time.Duration {
		if r.Float64() < share {
			return long
		}
		return short
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
