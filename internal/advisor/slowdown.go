package advisor

import "math"

// law is how a server slows down: with n calls at once, each takes slowdown(n) times as long as
// alone. This is Gunther's law: α is the share of the work that only one can do at a time, and β
// is what each call costs each other one. With β, more calls at once get less done from a number
// on. Both are zero for a server that does not slow down.
type law struct{ alpha, beta float64 }

func (s law) slowdown(n float64) float64 {
	n = max(n, 1)
	return 1 + (n-1)*(s.alpha+s.beta*n)
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
	next  []float64  // prefix integrals over the timeline: of 1/slowdown
	dA    []float64  // and of its derivatives
	dB    []float64
}

// call is what is compared of an item: an item that was busy.
type call struct {
	item, place, block int
	logBusy            float64
	z                  [2]float64 // how many were busy as it began, and the square of that
	e                  [2]float64 // the same, without what its place explains, and orthonormal
	logWork            float64    // by the parameters that are tried
	d                  [2]float64 // its derivatives by them
}

type placeSum struct {
	weight float64
	z      [2]float64
}

func newFitter(l *load) *fitter {
	f := &fitter{on: l.in, scale: 1}
	places := map[int]int{}
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
		f.calls = append(f.calls, call{item: i, place: place, block: of.block, logBusy: math.Log(of.busy), z: [2]float64{others}})
		f.scale = max(f.scale, others)
	}
	for i := range f.calls {
		of := &f.calls[i]
		of.z[0] /= f.scale
		of.z[1] = of.z[0] * of.z[0]
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

func (f *fitter) law(p params) law { return law{p[0] / f.scale, p[1] / (f.scale * f.scale)} }

// fit is the law that fits what was drawn. It is not known if at all times about as many were busy.
func (f *fitter) fit(w *weights) (by law, known bool) {
	const rounds, halvings, enough = 30, 6, 1e-9
	varied := f.orthonormalise(w)
	var p params
	m, d := f.moments(w, p)
	for range rounds {
		step, better := p.step(m, d), false
		before := m.norm()
		for range halvings {
			try := params{p[0] + step[0], p[1] + step[1]}
			if m, d = f.moments(w, try); m.norm() < before {
				p, better = try, true
				break
			}
			step[0], step[1] = step[0]/2, step[1]/2
		}
		if !better || math.Abs(step[0])+math.Abs(step[1]) < enough {
			break
		}
	}
	return f.law(p), varied > variety
}

// orthonormalise makes e of z: two directions in which works may depend on the others.
// It returns the variance of the first.
func (f *fitter) orthonormalise(w *weights) (varied float64) {
	clear(f.sums)
	for i := range f.calls {
		of := &f.calls[i]
		s, weight := &f.sums[of.place], w[of.block]
		s.weight += weight
		s.z[0] += weight * of.z[0]
		s.z[1] += weight * of.z[1]
	}
	for i := range f.calls {
		of := &f.calls[i]
		if s := &f.sums[of.place]; s.weight > 0 {
			of.e = [2]float64{of.z[0] - s.z[0]/s.weight, of.z[1] - s.z[1]/s.weight}
		}
	}
	varied = f.normalise(w, 0)
	along := 0.0
	for i := range f.calls {
		of := &f.calls[i]
		along += w[of.block] * of.e[0] * of.e[1]
	}
	for i := range f.calls {
		of := &f.calls[i]
		of.e[1] -= along * of.e[0]
	}
	f.normalise(w, 1)
	return varied
}

// variety is the variance, of calls of one place, of how many others were busy, as a share of the
// square of the most: with less, the slowdown cannot be seen.
const variety = 0.005

// normalise makes a direction as long as 1, or nothing where it is as good as that. It returns how
// long it was, for a call.
func (f *fitter) normalise(w *weights, k int) float64 {
	const nothing = 1e-8 // of each call
	length, total := 0.0, 0.0
	for i := range f.calls {
		of := &f.calls[i]
		length += w[of.block] * of.e[k] * of.e[k]
		total += w[of.block]
	}
	by := 0.0
	if length > nothing*total {
		by = 1 / math.Sqrt(length)
	}
	for i := range f.calls {
		f.calls[i].e[k] *= by
	}
	return length / max(total, 1)
}

// moments are how works depend on the others, by the parameters; and the derivatives of that.
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
		x := (n - 1) / f.scale
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

// moment is how works depend on the others, in the two directions.
type moment [2]float64

func (m moment) norm() float64 { return m[0]*m[0] + m[1]*m[1] }

// plus is m + s·d.
func (m moment) plus(s float64, d moment) moment { return moment{m[0] + s*d[0], m[1] + s*d[1]} }

func (m moment) dot(o moment) float64 { return m[0]*o[0] + m[1]*o[1] }

// step is the step that brings the moments nearest to zero, if they were linear, and keeps both
// parameters from being negative.
func (p params) step(m moment, d [2]moment) (best params) {
	least := math.Inf(1)
	try := func(a, b float64) {
		a, b = min(max(a, 0), most), min(max(b, 0), most)
		left := m.plus(a-p[0], d[0]).plus(b-p[1], d[1]).norm()
		if left < least {
			least, best = left, params{a - p[0], b - p[1]}
		}
	}
	at := m.plus(-p[0], d[0]).plus(-p[1], d[1]) // the moments if both were zero
	aa, ab, bb := d[0].norm(), d[0].dot(d[1]), d[1].norm()
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
