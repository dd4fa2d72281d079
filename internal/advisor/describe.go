package advisor

import (
	"cmp"
	"slices"
	"time"
)

// describe says what callers saw while it was recorded, and whether it is the limit that keeps
// them waiting.
func (l *load) describe(a *Advice, limit int) {
	a.Seen, a.Held, a.Closed = l.seen(), l.held, l.closed()
	a.Hold = l.medianHold()
	waits := make([]float64, len(l.items))
	hold, unused, slow, inUse, responses, dials := 0.0, 0.0, 0.0, 0.0, 0.0, 0
	places := map[int]float64{}
	for i := range l.items {
		of := &l.items[i]
		waits[i] = of.wait()
		if !l.isLimited(i) {
			responses += of.ended - of.arrived
		}
		inUse += of.ended - of.granted
		hold += of.hold()
		unused += of.unused
		places[of.place] += of.unused
		if of.hold() >= 10*float64(a.Hold) {
			slow += of.hold()
		}
		if of.dialed {
			dials++
		}
	}
	waits = l.counted(waits)
	a.Limited = len(l.items) - len(waits)
	a.Recorded = pointOf(waits, a.Goal)
	a.Recorded.Limit, a.Recorded.Response = max(limit, 0), span(responses/float64(max(len(waits), 1)))
	if limit > 0 {
		a.Recorded.Utilisation = min(inUse/l.end/float64(limit), 1)
	}
	a.Enough = a.Recorded.Met
	a.DialShare = float64(dials) / float64(max(len(l.items)-l.failed, 1))
	if hold > 0 {
		a.UnusedShare, a.SlowShare, a.Places = min(unused/hold, 1), min(slow/hold, 1), worst(places, hold)
	}
}

// pointOf describes waits, which it sorts.
func pointOf(waits []float64, goal Goal) Point {
	slices.Sort(waits)
	at := func(q float64) time.Duration { return span(quantile(waits, q)) }
	longer := 0
	for _, w := range slices.Backward(waits) {
		if w <= float64(goal.Wait) {
			break
		}
		longer++
	}
	return Point{P50: at(0.5), P99: at(0.99), P999: at(0.999), Wait: at(goal.Quantile), Met: few(float64(longer), float64(len(waits)), goal)}
}

// span is that many nanoseconds.
func span(ns float64) time.Duration { return time.Duration(min(max(ns, 0), 1<<62)) }

// few tells whether so many of all may wait longer than the goal has it.
func few(longer, all float64, goal Goal) bool {
	const rounding = 1e-9
	return longer <= (1-goal.Quantile+rounding)*all
}

// worst are the places that leave connections unused most.
func worst(unused map[int]float64, hold float64) (list []Place) {
	const mention, most = 0.01, 5
	for place, long := range unused {
		if long/hold >= mention {
			list = append(list, Place{place, long / hold})
		}
	}
	slices.SortFunc(list, func(a, b Place) int { return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Place, b.Place)) })
	return list[:min(len(list), most)]
}

// closed tells whether callers seem to ask again as soon as they were served: then about as many as
// ever are there at each moment. Callers who come by themselves come in crowds now and then, by
// chance alone, and the variance of their number is at least its mean.
func (l *load) closed() bool {
	const half, most = 0.5, 0.1
	ends := make([]float64, 0, len(l.items))
	waited := 0
	for i := range l.items {
		ends = append(ends, l.items[i].ended)
		if l.items[i].wait() > 0 {
			waited++
		}
	}
	if float64(waited) < most*float64(len(l.items)) {
		return false
	}
	slices.Sort(ends)
	from, to := l.span/10, l.items[len(l.items)-1].arrived // without the beginning and the end
	var time, sum, squares, last, n float64
	for a, e := 0, 0; e < len(ends); {
		at, by := ends[e], -1.0
		if a < len(l.items) && l.items[a].arrived < at {
			at, by = l.items[a].arrived, 1
			a++
		} else {
			e++
		}
		if long := min(at, to) - max(last, from); long > 0 {
			time += long
			sum += long * n
			squares += long * n * n
		}
		n += by
		last = at
	}
	if time <= 0 || sum <= 0 {
		return false
	}
	mean := sum / time
	return squares/time-mean*mean < half*mean
}
