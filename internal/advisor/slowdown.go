package advisor

import (
	"math"
	"slices"
)

// law is how a server slows down: with n calls at once, each takes slowdown(n) times as long as
// alone. This is Gunther's law, from a number of calls on that do not get in each other's way, such
// as those that have a core each: α is what each further call costs the others as they wait
// for it, and β what it costs them to keep in step. With β, more calls at once get less done
// from a number on. Both are zero for a server that does not slow down.
type law struct{ alone, alpha, beta float64 }

func (s law) slowdown(n float64) float64 {
	if n <= s.alone || n <= 1 {
		return 1
	}
	return 1 + (n-max(s.alone, 1))*(s.alpha+s.beta*n)
}

// The law is fitted by one demand: how much work a call is does not depend on how many others
// are busy as it begins. The work of a call is what it would take alone: its busy time, divided by
// the slowdown while it lasted. If the law is too weak, the work seems to grow with the
// others; if it is too strong, to shrink.
//
// How many others are busy as a call begins, a long call cannot change. How many are busy on
// average while it lasts, it can: in a long time that average is always near the usual one. So
// the average would tell of the lengths of calls, and not of the slowdown.
//
// Works are compared by their logarithms, since slowdown multiplies, and since a few calls that
// are very long would decide everything else. They are compared among calls of one place, so that
// nothing is read into a place being busy when others are.

// fitter fits the law to a load.
type fitter struct {
	on    *timeline
	scale float64 // concurrency is counted in these, so that both parameters are near one
	calls []call
	sums  []placeSum // by place

	alone float64   // what is tried
	next  []float64 // prefix integrals over the timeline: of 1/slowdown
	dA    []float64 // and of its derivatives
	dB    []float64
}

// call is what is compared of an item: an item that was busy.
type call struct {
	item, place, block int
	logBusy            float64
	others             float64    // how many were busy as it began
	level              int        // calls are compared by levels of that
	e                  moment     // the level, without what its place explains, and orthonormal
	logWork            float64    // by the parameters that are tried
	d                  [2]float64 // its derivatives by them
}

// levels is how many levels there are, and shares are where they end: the highest are small, since
// what happens there tells most.
const levels = 7

var shares = [levels - 1]float64{0.2, 0.4, 0.6, 0.8, 0.92, 0.98}

// moment is how works depend on the level, in as many directions as that can be.
type moment [levels - 1]float64

// placeSum sums up the calls of a place.
type placeSum struct {
	weight, work float64
	level        [levels - 1]float64
}

func newFitter(l *load) *fitter {
	f := &fitter{on: l.in, scale: 1}
	places := map[int]int{}
	var all []float64
	for i := range l.items {
		of := &l.items[i]
		if of.failed || of.busy <= 0 {
			continue
		}
		place, known := places[of.place]
		if !known {
			place = len(places)
			places[of.place] = place
		}
		others := max(l.in.busy[l.in.begin[i]]-of.share(), 0)
		f.calls = append(f.calls, call{item: i, place: place, block: of.block, logBusy: math.Log(of.busy), others: others})
		f.scale = max(f.scale, others)
		all = append(all, others)
	}
	slices.Sort(all)
	for i := range f.calls {
		for _, share := range shares {
			if f.calls[i].others > quantile(all, share) {
				f.calls[i].level++
			}
		}
	}
	f.sums = make([]placeSum, len(places))
	moments := len(l.in.at)
	f.next, f.dA, f.dB = make([]float64, moments), make([]float64, moments), make([]float64, moments)
	return f
}

// weights are how often each block was drawn.
type weights [blocks]float64

// everything is each block once.
func everything() (w weights) {
	for i := range w {
		w[i] = 1
	}
	return w
}

// params are α and β, in units in which they are near one.
type params [2]float64

func (f *fitter) law(p params) law {
	if p == (params{}) {
		return law{}
	}
	return law{f.alone, p[0] / f.scale, p[1] / (f.scale * f.scale)}
}

// fit is the law that fits the recording. It is the one that begins with the first call, unless
// another fits clearly better. It is not known if at all times about as many were busy.
func (f *fitter) fit() (by law, known bool) {
	const clearly = 2 // in variances of a moment
	once := everything()
	varied := f.orthonormalise(&once)
	var tried []float64
	var laws []law
	for n := 1.0; n == 1 || n < f.scale*3/4; n = max(n+1, math.Floor(n*1.3)) {
		f.alone = n
		p, left := f.solve(&once)
		tried, laws = append(tried, left), append(laws, f.law(p))
	}
	f.alone = 1
	f.works(params{})
	best := slices.Min(tried)
	k := slices.IndexFunc(tried, func(left float64) bool { return left <= best+clearly*f.variance(&once) })
	f.alone = max(laws[k].alone, 1)
	return laws[k], varied > variety
}

// fitDrawn is the law that fits what was drawn, if it begins where that of the recording does.
func (f *fitter) fitDrawn(w *weights) law {
	f.orthonormalise(w)
	p, _ := f.solve(w)
	return f.law(p)
}

// solve finds the parameters for what is tried, and how much works depend on the level even so.
func (f *fitter) solve(w *weights) (p params, left float64) {
	const rounds, halvings, enough = 30, 6, 1e-6
	m, d := f.moments(w, p)
	for range rounds {
		step, better := p.step(m, d), false
		before := m.dot(m)
		for range halvings {
			try := params{p[0] + step[0], p[1] + step[1]}
			if tm, td := f.moments(w, try); tm.dot(tm) < before {
				p, m, d, better = try, tm, td, true
				break
			}
			step[0], step[1] = step[0]/2, step[1]/2
		}
		if !better || math.Abs(step[0])+math.Abs(step[1]) < enough {
			break
		}
	}
	return p, m.dot(m)
}

// variety is the variance of how many others were busy, among calls of one place, as a share of the
// square of the most: with less, the slowdown cannot be seen.
const variety = 0.005

// orthonormalise makes the directions in which works may depend on the level. It returns how varied
// the numbers of others are.
func (f *fitter) orthonormalise(w *weights) (varied float64) {
	clear(f.sums)
	for i := range f.calls {
		of := &f.calls[i]
		s, weight := &f.sums[of.place], w[of.block]
		s.weight += weight
		s.work += weight * of.others
		if of.level > 0 {
			s.level[of.level-1] += weight
		}
	}
	total := 0.0
	for i := range f.calls {
		of := &f.calls[i]
		s, weight := &f.sums[of.place], w[of.block]
		of.e = moment{}
		if s.weight == 0 {
			continue
		}
		for k := range of.e {
			of.e[k] = -s.level[k] / s.weight
		}
		if of.level > 0 {
			of.e[of.level-1]++
		}
		off := (of.others - s.work/s.weight) / f.scale
		varied += weight * off * off
		total += weight
	}
	for k := range shares {
		for before := range k {
			f.subtract(w, k, before)
		}
		f.normalise(w, k)
	}
	return varied / max(total, 1)
}

// subtract takes from one direction what is along another.
func (f *fitter) subtract(w *weights, from, other int) {
	along := 0.0
	for i := range f.calls {
		of := &f.calls[i]
		along += w[of.block] * of.e[from] * of.e[other]
	}
	for i := range f.calls {
		of := &f.calls[i]
		of.e[from] -= along * of.e[other]
	}
}

// normalise makes a direction as long as 1, or nothing where it is as good as that.
func (f *fitter) normalise(w *weights, k int) {
	const nothing = 1e-6
	length := 0.0
	for i := range f.calls {
		of := &f.calls[i]
		length += w[of.block] * of.e[k] * of.e[k]
	}
	by := 0.0
	if length > nothing {
		by = 1 / math.Sqrt(length)
	}
	for i := range f.calls {
		f.calls[i].e[k] *= by
	}
}

// variance is that of the logarithms of works, among calls of one place.
func (f *fitter) variance(w *weights) (v float64) {
	for i := range f.sums {
		f.sums[i].work = 0
	}
	for i := range f.calls {
		of := &f.calls[i]
		f.sums[of.place].work += w[of.block] * of.logWork
	}
	total := 0.0
	for i := range f.calls {
		of := &f.calls[i]
		if s := &f.sums[of.place]; s.weight > 0 {
			off := of.logWork - s.work/s.weight
			v += w[of.block] * off * off
			total += w[of.block]
		}
	}
	return v / max(total, 1)
}

// moments are how works depend on the level, by the parameters; and the derivatives of that.
func (f *fitter) moments(w *weights, p params) (m moment, d [2]moment) {
	f.works(p)
	for i := range f.calls {
		of := &f.calls[i]
		for k := range m {
			e := w[of.block] * of.e[k]
			m[k] += e * of.logWork
			d[0][k] += e * of.d[0]
			d[1][k] += e * of.d[1]
		}
	}
	return m, d
}

// works works out the works of all calls, and their derivatives.
func (f *fitter) works(p params) {
	t := f.on
	for k := 1; k < len(t.at); k++ {
		n := max(t.busy[k-1], 1)
		x := max(n-f.alone, 0) / f.scale
		y := x * n / f.scale
		inverse := 1 / (1 + p[0]*x + p[1]*y)
		long := (t.at[k] - t.at[k-1]) * inverse
		f.next[k] = f.next[k-1] + long
		long *= inverse
		f.dA[k] = f.dA[k-1] + long*x
		f.dB[k] = f.dB[k-1] + long*y
	}
	for i := range f.calls {
		of := &f.calls[i]
		from, to := t.begin[of.item], t.end[of.item]
		alone := f.next[to] - f.next[from]
		if alone <= 0 { // it is too short beside the recording to be told from nothing
			of.logWork, of.d = of.logBusy, [2]float64{}
			continue
		}
		of.logWork = of.logBusy + math.Log(alone/(t.at[to]-t.at[from]))
		of.d = [2]float64{-(f.dA[to] - f.dA[from]) / alone, -(f.dB[to] - f.dB[from]) / alone}
	}
}

// work is how long each item is busy if it is alone, by a law.
func (l *load) work(by law) []float64 {
	t := l.in
	alone := make([]float64, len(t.at)) // the prefix integral of 1/slowdown
	for k := 1; k < len(t.at); k++ {
		alone[k] = alone[k-1] + (t.at[k]-t.at[k-1])/by.slowdown(t.busy[k-1])
	}
	works := make([]float64, len(l.items))
	for i := range l.items {
		of := &l.items[i]
		works[i] = of.busy
		if from, to := t.begin[i], t.end[i]; by != (law{}) && to > from && of.busy > 0 && !of.failed {
			works[i] *= (alone[to] - alone[from]) / (t.at[to] - t.at[from])
		}
	}
	for i := range l.items {
		if of := &l.items[i]; of.failed {
			works[i] = works[of.like]
		}
	}
	return works
}

func (m *moment) dot(o moment) (sum float64) {
	for k := range m {
		sum += m[k] * o[k]
	}
	return sum
}

// plus is m + s·d.
func (m moment) plus(s float64, d moment) moment {
	for k := range m {
		m[k] += s * d[k]
	}
	return m
}

// step is the step that brings the moments nearest to zero, if they were linear, and keeps both
// parameters from being negative.
func (p params) step(m moment, d [2]moment) (best params) {
	least := math.Inf(1)
	try := func(a, b float64) {
		a, b = min(max(a, 0), most), min(max(b, 0), most)
		if at := m.plus(a-p[0], d[0]).plus(b-p[1], d[1]); at.dot(at) < least {
			least, best = at.dot(at), params{a - p[0], b - p[1]}
		}
	}
	at := m.plus(-p[0], d[0]).plus(-p[1], d[1]) // the moments if both were zero
	aa, ab, bb := d[0].dot(d[0]), d[0].dot(d[1]), d[1].dot(d[1])
	am, bm := -d[0].dot(at), -d[1].dot(at)
	try(0, 0)
	if aa > 0 {
		try(am/aa, 0)
	}
	if bb > 0 {
		try(0, bm/bb)
	}
	if det := aa*bb - ab*ab; det > 1e-9*aa*bb {
		if a, b := (am*bb-bm*ab)/det, (bm*aa-am*ab)/det; a > 0 && b > 0 {
			try(a, b)
		}
	}
	return best
}

// most bounds the parameters: at the highest concurrency that was seen, calls are no more than
// about so many times slower than alone.
const most = 1000
