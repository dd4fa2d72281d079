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
	load    *load
	goal    Goal
	list    []int   // the limits that are tried
	callers weights // in each block, but for those who wait for their lane's Max
	replay  *replay
	random  *rand.Rand
}

func newSearch(l *load, goal Goal, seen int) *search {
	s := &search{load: l, goal: goal, list: limits(beyond*seen + l.held), replay: newReplay(l), random: rand.New(rand.NewPCG(1955, 2007))}
	for i := range l.items {
		if !l.isLimited(i) {
			s.callers[l.items[i].block]++
		}
	}
	return s
}

// trial is what comes of each limit of a list, by one law.
type trial struct {
	list     []int
	callers  weights // in each block
	results  []result
	longer   []weights  // of each: in each block, the callers who wait longer than the goal has it
	episodes []episodes // of each: when these came
	tips     int        // the first limit from which on a full pool never recovers; if there is none, the length of the list
}

// try replays limits.
func (s *search) try(list []int, by law, see func(limit int, waits []float64, r result)) *trial {
	work := s.load.work(by)
	t := &trial{
		list: list, callers: s.callers, tips: s.load.tips(list, by, work),
		longer: make([]weights, len(list)), episodes: make([]episodes, len(list)),
	}
	for k, limit := range list {
		r := s.replay.run(limit, by, work)
		for i, wait := range s.replay.waits {
			if wait > float64(s.goal.Wait) && !s.load.isLimited(i) {
				of := &s.load.items[i]
				t.longer[k][of.block]++
				t.episodes[k].add(of.arrived, s.load.span/blocks/2)
			}
		}
		t.results = append(t.results, r)
		if see != nil {
			see(limit, s.replay.waits, r)
		}
	}
	return t
}

// picked is what is chosen of a trial. All are numbers of limits in its list.
type picked struct {
	limit    int  // the smallest that meets the goal and is not worse than the best; else the smallest that is as good as that
	met      bool // it meets the goal
	collapse int  // the first above the best that is worse, or tips; if there is none, the length of the list
	far      bool // larger limits might do better, of which nothing is known
}

// pick chooses, with the blocks that were drawn.
func (t *trial) pick(goal Goal, drawn *weights) picked {
	callers := t.callers.times(drawn)
	means := make([]float64, len(t.list)) // of the responses
	for k := range means {
		means[k] = t.results[k].responses.times(drawn)
	}
	least := slices.Index(means, slices.Min(means))
	first := func(from int, found func(k int) bool) int {
		for from < len(t.list) && !found(from) {
			from++
		}
		return from
	}
	p := picked{collapse: min(t.tips, first(least+1, func(k int) bool { return means[k] > worse*means[least] }))}
	good := min(t.tips, first(least+1, func(k int) bool { return means[k] > asGood*means[least] })) // so far it is not worse
	p.limit = first(0, func(k int) bool { return few(t.longer[k].times(drawn), callers, goal) })
	if p.met = p.limit < good; !p.met {
		p.far = good == len(t.list)
		p.limit = first(0, func(k int) bool { return means[k] <= asGood*means[least] })
	}
	return p
}

func (w *weights) times(o *weights) (sum float64) {
	for b := range w {
		sum += w[b] * o[b]
	}
	return sum
}

// mean is the mean of what is summed up of so many in each block.
func (w *weights) mean(callers *weights) float64 {
	once := everything()
	return w.times(&once) / callers.times(&once)
}

// answer fills the advice.
func (s *search) answer(a *Advice, of Recording) {
	fitter := newFitter(s.load)
	by, known := fitter.fit()
	a.Slowdown = by.slowdown(float64(a.Seen))
	t := s.try(s.list, by, func(limit int, waits []float64, r result) {
		p := pointOf(s.load.counted(waits), s.goal)
		p.Limit, p.Response, p.Utilisation = limit, span(r.responses.mean(&s.callers)), r.utilisation
		a.Curve = append(a.Curve, p)
	})
	once := everything()
	p := t.pick(s.goal, &once)
	a.Limit, a.Met, a.Collapse = t.list[p.limit], p.met, s.collapse(t, p)
	reason := s.load.misleading(a)
	if reason == "" {
		reason = s.doubtful(a, t, p, known)
	}
	if reason == "" {
		reason = s.ranged(a, p, fitter)
	}
	if reason == "" {
		reason = a.bound(of)
	}
	if reason != "" {
		a.refuse(reason, of)
	}
}

// collapse is the limit from which on it is worse, with half of what is drawn; 0: there is none. It
// is above the limit that was picked, which is not worse with what was recorded.
func (s *search) collapse(t *trial, p picked) int {
	var all []int
	for range draws {
		drawn := s.drawn()
		all = append(all, t.pick(s.goal, &drawn).collapse)
	}
	slices.Sort(all)
	if k := max(all[draws/2], p.limit+1); k < len(t.list) {
		return t.list[k]
	}
	return 0
}

// doubtful tells why the limit that was picked is none.
func (s *search) doubtful(a *Advice, t *trial, p picked, known bool) Refusal {
	fails := p.limit - 1 // the largest limit that does not meet the goal
	if !p.met {
		fails = len(t.list) - 1
	}
	r := &t.results[p.limit]
	switch {
	case r.late-r.responses.mean(&s.callers) > lostTime*s.load.span:
		return Overload
	case fails >= 0 && fewBursts(&t.longer[fails], t.episodes[fails]):
		return FewBursts
	case p.far:
		a.Limit = t.list[len(t.list)-1] // is worth a try
		return TooFar
	case a.Recorded.Utilisation >= fullTime && !known:
		return SlowdownUnknown
	}
	return ""
}

// ranged finds the range of the limit.
func (s *search) ranged(a *Advice, p picked, fitter *fitter) Refusal {
	list := s.near(p.limit)
	var trials []*trial
	for range fits {
		drawn := s.drawn()
		trials = append(trials, s.try(list, fitter.fitDrawn(&drawn), nil))
	}
	var limits []int
	far := 0
	for i := range draws {
		drawn := s.drawn()
		p := trials[i%fits].pick(s.goal, &drawn)
		limits = append(limits, list[p.limit])
		if p.far && list[len(list)-1] == s.list[len(s.list)-1] {
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
func (a *Advice) refuse(reason Refusal, of Recording) {
	a.Refused = reason
	switch reason {
	case GaveUp, ClosedLoop, Overload, TooFar, SlowdownUnknown:
		a.Try = max(a.Limit, of.Floor)
		if of.Ceiling > 0 {
			a.Try = min(a.Try, of.Ceiling)
		}
	}
	a.Limit, a.Met = 0, false
	if reason != Unsure { // of which they are the reason
		a.Low, a.High = 0, 0
	}
}
