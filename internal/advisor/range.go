package advisor

import (
	"math/rand/v2"
	"slices"
)

// The answer has two errors. The waits that were recorded, and so those of a replay, are those of
// one hour; and the slowdown is an estimate. Both are drawn: blocks of the recording for the waits,
// and blocks for the fit (Künsch, "The jackknife and the bootstrap for general stationary
// observations", 1989). A fit takes a replay of each limit, so there are few fits.
const (
	fits      = 12  // of the slowdown, drawn
	draws     = 200 // of the waits
	beyond    = 2   // how many times more connections than were seen in use are thought about
	window    = 3   // draws are replayed for limits up to so many times smaller and larger than the answer
	mostRange = 3   // a range of which the end is that much higher than the beginning is no answer
	mostFar   = 0.25
)

// search is the search for the limit.
type search struct {
	load   *load
	goal   Goal
	list   []int   // the limits that are tried
	all    weights // the callers in each block
	replay *replay
	random *rand.Rand
}

func newSearch(l *load, goal Goal, seen int) *search {
	s := &search{load: l, goal: goal, list: limits(beyond*seen + l.held), replay: newReplay(l), random: rand.New(rand.NewPCG(1955, 2007))}
	for i := range l.items {
		s.all[l.items[i].block]++
	}
	return s
}

// trial is what comes of each limit of a list, by one law.
type trial struct {
	list     []int
	results  []result
	longer   []weights  // of each: in each block, the callers who wait longer than the goal has it
	episodes []episodes // of each: when these came
	best     int        // the limit with the least response
}

// try replays limits.
func (s *search) try(list []int, by law, see func(limit int, waits []float64, r result)) trial {
	work := s.load.work(by)
	t := trial{list: list, results: make([]result, len(list)), longer: make([]weights, len(list)), episodes: make([]episodes, len(list))}
	for k, limit := range list {
		r := s.replay.run(limit, by, work)
		for i, wait := range s.replay.waits {
			if wait > float64(s.goal.Wait) {
				of := &s.load.items[i]
				t.longer[k][of.block]++
				t.episodes[k].add(of.arrived, s.load.span/blocks/2)
			}
		}
		t.results[k] = r
		if r.response < t.results[t.best].response {
			t.best = k
		}
		if see != nil {
			see(limit, s.replay.waits, r)
		}
	}
	return t
}

// pick is the smallest limit that meets the goal with the blocks that were drawn, and after which
// it did not get worse. If none does, it is the smallest that is as good as the best.
func (t *trial) pick(goal Goal, all, drawn *weights) (k int, met bool) {
	for k := range t.list {
		if t.allowed(k) && few(t.longer[k].times(drawn), all.times(drawn), goal) {
			return k, true
		}
	}
	for k := range t.list {
		if t.good(k) {
			return k, false
		}
	}
	return t.best, false
}

// good tells whether a limit is as good as the best.
func (t *trial) good(k int) bool { return t.results[k].response <= asGood*t.results[t.best].response }

// allowed tells whether a limit is not beyond the collapse: no smaller one above the best is worse.
func (t *trial) allowed(k int) bool {
	for k > t.best && t.good(k) {
		k--
	}
	return k <= t.best
}

// collapse is the limit from which on it is worse; 0: there is none.
func (t *trial) collapse() int {
	for k := t.best + 1; k < len(t.list); k++ {
		if t.results[k].response > worse*t.results[t.best].response {
			return t.list[k]
		}
	}
	return 0
}

// tooFar tells whether larger limits might do better, of which nothing is known.
func (t *trial) tooFar(met bool) bool { return !met && t.allowed(len(t.list)-1) }

func (w *weights) times(o *weights) (sum float64) {
	for b := range w {
		sum += w[b] * o[b]
	}
	return sum
}

// answer fills the advice.
func (s *search) answer(a *Advice, of Recording) {
	fitter := newFitter(s.load)
	by, known := fitter.fit()
	a.Slowdown = by.slowdown(float64(a.Seen))
	t := s.try(s.list, by, func(limit int, waits []float64, r result) {
		p := pointOf(slices.Clone(waits), s.goal)
		p.Limit, p.Response, p.Utilisation = limit, span(r.response), r.utilisation
		a.Curve = append(a.Curve, p)
	})
	once := everything()
	k, met := t.pick(s.goal, &s.all, &once)
	a.Limit, a.Met, a.Collapse = t.list[k], met, t.collapse()
	reason := s.load.misleading(a)
	if reason == "" {
		reason = s.doubtful(a, &t, k, known)
	}
	if reason == "" {
		reason = s.ranged(a, k, fitter)
	}
	if reason == "" {
		reason = a.bound(of)
	}
	if reason != "" {
		a.refuse(reason, of.Ceiling)
	}
}

// doubtful tells why the limit that was picked is none.
func (s *search) doubtful(a *Advice, t *trial, k int, known bool) Refusal {
	fails := k - 1 // the largest limit that does not meet the goal
	if !a.Met {
		fails = len(t.list) - 1
	}
	switch {
	case t.results[k].late-t.results[k].response > lostTime*s.load.span:
		return Overload
	case fails >= 0 && fewBursts(&t.longer[fails], t.episodes[fails]):
		return FewBursts
	case t.tooFar(a.Met):
		a.Limit = t.list[len(t.list)-1] // is worth a try
		return TooFar
	case a.Recorded.Utilisation >= fullTime && !known:
		return SlowdownUnknown
	}
	return ""
}

// ranged finds the range of the limit.
func (s *search) ranged(a *Advice, k int, fitter *fitter) Refusal {
	list := s.near(k)
	var trials []trial
	for range fits {
		drawn := s.drawn()
		trials = append(trials, s.try(list, fitter.fitDrawn(&drawn), nil))
	}
	var limits []int
	far := 0
	for i := range draws {
		t := &trials[i%fits]
		drawn := s.drawn()
		k, met := t.pick(s.goal, &s.all, &drawn)
		limits = append(limits, t.list[k])
		if t.tooFar(met) && list[len(list)-1] == s.list[len(s.list)-1] {
			far++
		}
	}
	slices.Sort(limits)
	a.Low, a.High = min(limits[draws/20], a.Limit), max(limits[draws-1-draws/20], a.Limit)
	switch {
	case float64(far) > mostFar*draws:
		return TooFar
	case a.High >= mostRange*a.Low && a.High-a.Low > mostRange:
		return Unsure
	}
	return ""
}

// near are the limits that are not far from one of them.
func (s *search) near(k int) (list []int) {
	for _, limit := range s.list {
		if limit*window >= s.list[k] && limit <= s.list[k]*window {
			list = append(list, limit)
		}
	}
	return list
}

// drawn are as many blocks as there are, each any of them.
func (s *search) drawn() (w weights) {
	for range w {
		w[s.random.IntN(len(w))]++
	}
	return w
}

// bound keeps the advice between floor and ceiling.
func (a *Advice) bound(of Recording) Refusal {
	if of.Ceiling > 0 && a.Limit > of.Ceiling {
		a.Limit, a.Met = of.Ceiling, false
	}
	if of.Floor > a.Limit {
		if of.Ceiling > 0 && of.Floor > of.Ceiling || a.Collapse > 0 && of.Floor >= a.Collapse {
			return Conflict
		}
		a.Limit, a.Met = of.Floor, true
	}
	a.Low, a.High = min(a.Low, a.Limit), max(a.High, a.Limit)
	if of.Ceiling > 0 {
		a.High = min(a.High, of.Ceiling)
	}
	return ""
}

// refuse takes the limit back. It is worth a try where the recording is of the pool as it is, and
// does not reach far enough.
func (a *Advice) refuse(reason Refusal, ceiling int) {
	a.Refused = reason
	switch reason {
	case GaveUp, ClosedLoop, Overload, TooFar, SlowdownUnknown:
		a.Try = a.Limit
		if ceiling > 0 {
			a.Try = min(a.Try, ceiling)
		}
	}
	a.Limit, a.Met = 0, false
	if reason != Unsure { // of which they are the reason
		a.Low, a.High = 0, 0
	}
}
