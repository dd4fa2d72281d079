package advisor

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// This file is the truth that advice is compared with: a simulation of a pool and a server, made
// as plainly as can be, which shares nothing with the replay. It steps from event to event and
// takes from each busy call what it got done.

// caller is somebody who comes, with his work.
type caller struct {
	at, work, fixed float64 // in seconds
	place           int
	lane            int
}

// world is what callers come to.
type world struct {
	limit   int                           // 0: none
	lanes   []Lane                        // nil: there are none
	slower  func(n int) float64           // with n busy calls
	atStart bool                          // the slowdown of a call is that of its beginning, to its end
	again   func(c caller) (caller, bool) // what a caller does when he was served; nil: he goes
}

// running is somebody who has a connection.
type running struct {
	caller
	acquired float64
	work     float64 // that is left
	fixed    float64
	speed    float64 // atStart
}

// simulate returns the leases of the callers.
func (w world) simulate(callers []caller) []Lease {
	var leases []Lease
	var queue []caller
	var out []*running
	coming := slices.Clone(callers)
	now := 0.0
	for len(coming) > 0 || len(queue) > 0 || len(out) > 0 {
		busy := 0
		for _, r := range out {
			if r.work > 0 {
				busy++
			}
		}
		pace := 1 / w.slower(busy)
		step := math.Inf(1)
		if len(coming) > 0 {
			step = coming[0].at - now
		}
		for _, r := range out {
			if r.work > 0 {
				step = min(step, r.work/r.at(pace))
			} else {
				step = min(step, r.fixed)
			}
		}
		step = max(step, 0)
		for _, r := range out {
			if r.work > 0 {
				if r.work -= step * r.at(pace); r.work < 1e-12 {
					r.work = 0
				}
			} else {
				r.fixed -= step
			}
		}
		now += step
		for len(coming) > 0 && coming[0].at <= now {
			queue = append(queue, coming[0])
			coming = coming[1:]
		}
		out = slices.DeleteFunc(out, func(r *running) bool {
			if r.work > 0 || r.fixed > 1e-12 {
				return false
			}
			leases = append(leases, Lease{
				Arrived: seconds(r.caller.at), Acquired: seconds(r.acquired), Ended: seconds(now), Unused: seconds(r.caller.fixed), Place: r.place, Lane: r.lane,
			})
			if w.again != nil {
				if next, comes := w.again(caller{at: now, work: r.caller.work, fixed: r.caller.fixed, place: r.place}); comes {
					at, _ := slices.BinarySearchFunc(coming, next, func(a, b caller) int { return cmp.Compare(a.at, b.at) })
					coming = slices.Insert(coming, at, next)
				}
			}
			return true
		})
		for {
			first := slices.IndexFunc(queue, func(c caller) bool { return w.mayServe(c.lane, out) })
			if first < 0 {
				break
			}
			r := &running{caller: queue[first], acquired: now, work: queue[first].work, fixed: queue[first].fixed}
			queue = slices.Delete(slices.Clone(queue), first, first+1)
			out = append(out, r)
			if w.atStart {
				busy := 0
				for _, o := range out {
					if o.work > 0 {
						busy++
					}
				}
				r.speed = 1 / w.slower(busy)
			}
		}
	}
	return leases
}

// mayServe tells whether somebody of a lane may have a connection, beside those who have one.
func (w world) mayServe(lane int, out []*running) bool {
	free, reserved := w.limit-len(out), 0
	for _, l := range w.lanes {
		reserved += l.Reserve
	}
	for id, l := range w.lanes {
		has := 0
		for _, r := range out {
			if r.lane == id {
				has++
			}
		}
		switch {
		case id != lane && reserved < w.limit:
			free -= max(l.Reserve-has, 0)
		case l.Max > 0 && has >= l.Max:
			return false
		}
	}
	return w.limit == 0 || free > 0
}

// at is how fast it gets on.
func (r *running) at(pace float64) float64 {
	if r.speed > 0 {
		return r.speed
	}
	return pace
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * float64(time.Second))) }

// gunther is a server that slows down by Gunther's law.
func gunther(alpha, beta float64) func(n int) float64 {
	return func(n int) float64 { return 1 + float64(n-1)*(alpha+beta*float64(n)) }
}

// cores is a server with so many cores, where each call beyond them costs the others a bit.
func cores(c int, each float64) func(n int) float64 {
	return func(n int) float64 {
		if n <= c {
			return 1
		}
		return float64(n) / float64(c) * (1 + each*float64(n-c))
	}
}

// load of a test: who comes when, and with what work.
type loadOf struct {
	rate  func(r *rand.Rand, now float64) float64 // arrivals in a second
	work  func(r *rand.Rand) float64
	fixed func(r *rand.Rand) float64
	lane  func(c caller) int // nil: all are in the first
}

// callers come for so many seconds.
func (l loadOf) callers(seed uint64, long float64) (all []caller) {
	r := rand.New(rand.NewPCG(seed, 1))
	for now := 0.0; ; {
		now += r.ExpFloat64() / l.rate(r, now)
		if now > long {
			return all
		}
		c := caller{at: now, work: l.work(r)}
		if l.fixed != nil {
			c.fixed = l.fixed(r)
		}
		if l.lane != nil {
			c.lane = l.lane(c)
		}
		all = append(all, c)
	}
}

func poisson(rate float64) func(*rand.Rand, float64) float64 {
	return func(*rand.Rand, float64) float64 { return rate }
}

// bursts are arrivals at two rates in turn, each for a random time.
func bursts(calm, burst, calmFor, burstFor float64) func(*rand.Rand, float64) float64 {
	until, in := 0.0, true
	return func(r *rand.Rand, now float64) float64 {
		if now == 0 { // others came before, in another run
			until, in = 0, true
		}
		for now >= until {
			in = !in
			if in {
				until += r.ExpFloat64() * burstFor
			} else {
				until += r.ExpFloat64() * calmFor
			}
		}
		if in {
			return burst
		}
		return calm
	}
}

func constant(s float64) func(*rand.Rand) float64 { return func(*rand.Rand) float64 { return s } }

func exponential(mean float64) func(*rand.Rand) float64 {
	return func(r *rand.Rand) float64 { return mean * r.ExpFloat64() }
}

// lognormal has a mean and a spread of its logarithm.
func lognormal(mean, sigma float64) func(*rand.Rand) float64 {
	return func(r *rand.Rand) float64 { return mean * math.Exp(sigma*r.NormFloat64()-sigma*sigma/2) }
}

// pareto has a mean, and a tail with that exponent.
func pareto(mean, tail float64) func(*rand.Rand) float64 {
	return func(r *rand.Rand) float64 { return mean * (tail - 1) / tail * math.Pow(1-r.Float64(), -1/tail) }
}

// either is long for a share of the calls.
func either(short, long, share float64) func(*rand.Rand) float64 {
	return func(r *rand.Rand) float64 {
		if r.Float64() < share {
			return long
		}
		return short
	}
}

// truth is what limits do in the simulation.
type truth struct {
	limits    []int
	longer    []float64 // the share that waits longer than the goal has it
	responses []float64
}

// measure simulates limits.
func measure(w world, callers []caller, goal Goal, limits []int) (t truth) {
	t.limits = limits
	for _, limit := range limits {
		w.limit = limit
		longer, response := 0, 0.0
		leases := slices.DeleteFunc(w.simulate(callers), func(l Lease) bool { return len(w.lanes) > 0 && w.lanes[l.Lane].Max > 0 })
		for _, l := range leases {
			if l.Acquired-l.Arrived > goal.Wait {
				longer++
			}
			response += (l.Ended - l.Arrived).Seconds()
		}
		t.longer = append(t.longer, float64(longer)/float64(len(leases)))
		t.responses = append(t.responses, response/float64(len(leases)))
	}
	return t
}

// best is the smallest limit that meets the goal and is not beyond the collapse; or else the
// smallest that is as good as the best. And it is the first limit that is worse, or 0.
func (t truth) best(goal Goal) (limit, collapse int) {
	goal = goal.or(0)
	least := slices.Index(t.responses, slices.Min(t.responses))
	for k := least + 1; k < len(t.limits); k++ {
		if t.responses[k] > worse*t.responses[least] {
			collapse = t.limits[k]
			break
		}
	}
	for k := range t.limits {
		if t.longer[k] <= 1-goal.Quantile && (k <= least || t.responses[k] <= asGood*t.responses[least]) {
			return t.limits[k], collapse
		}
	}
	for k := range t.limits {
		if t.responses[k] <= asGood*t.responses[least] {
			return t.limits[k], collapse
		}
	}
	return t.limits[least], collapse
}
