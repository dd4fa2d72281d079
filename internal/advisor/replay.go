package advisor

import "math"

// A replay goes through a load as if the pool had had another limit: callers come when they came,
// and get a connection in that order. Then each has his work to do on the server, which takes the
// longer the more do so at the same time, and after that he has what takes its time anyway.
//
// With a server that does not slow down, a heap of the moments at which connections come free
// would be enough: it has the limit's number of entries, and the next caller takes the first. The
// slowdown is the same for all who are busy. So their work goes on at one pace, and a clock can
// count it: who begins when that clock stands at v, with work w, is done when it stands at v+w,
// whatever the others do meanwhile. So busy calls are in a heap too, by that clock, and a replay
// takes O(log limit) for each caller.

// replay is the room that replays of one load need.
type replay struct {
	load  *load
	waits []float64 // of each item, after run
	busy  heap      // by the clock of work
	fixed heap      // by time
	now   float64
	clock float64 // of work
	law   law
	work  []float64
	out   int     // connections in use
	inUse float64 // summed over time
	queue queue
}

// result is what a replay shows, but for the waits.
type result struct {
	responses   weights // of the callers of each block: from asking to giving back, summed up
	utilisation float64
	late        float64 // for how long the last one was still there after the last arrival
}

func newReplay(l *load) *replay { return &replay{load: l, waits: make([]float64, len(l.items))} }

// run replays the load with a limit. The work of the items is by that law.
func (r *replay) run(limit int, by law, work []float64) result {
	items := r.load.items
	*r = replay{load: r.load, waits: r.waits, busy: r.busy[:0], fixed: r.fixed[:0], law: by, work: work, queue: r.queue.anew(&r.load.lanes)}
	limit = max(limit-r.load.held, 1)
	var responses weights
	gone := 0.0 // the last of those who count
	for arrived := 0; arrived < len(items) || r.out > 0; {
		next, done := r.next()
		if arrived < len(items) && (done < 0 || items[arrived].arrived < next) {
			r.pass(items[arrived].arrived)
			arrived++
		} else {
			r.pass(next)
			if r.done(done) && !r.load.isLimited(done) {
				responses[items[done].block] += next - items[done].arrived
				gone = next
			}
		}
		for r.out < limit {
			first := r.queue.pop(arrived, r.out, limit)
			if first < 0 {
				break
			}
			r.begin(first)
		}
	}
	last := items[len(items)-1].arrived
	return result{
		responses:   responses,
		utilisation: (r.inUse/max(r.now, 1) + float64(r.load.held)) / float64(limit+r.load.held),
		late:        gone - last,
	}
}

// next is when the next of those who have a connection is done with what he does, and who that
// is; -1: nobody has one.
func (r *replay) next() (at float64, item int) {
	at, item = math.Inf(1), -1
	if len(r.busy) > 0 {
		at, item = r.now+max(r.busy[0].at-r.clock, 0)*r.law.slowdown(float64(len(r.busy))), r.busy[0].item
	}
	if len(r.fixed) > 0 && r.fixed[0].at < at {
		at, item = r.fixed[0].at, r.fixed[0].item
	}
	return at, item
}

// pass lets time pass.
func (r *replay) pass(until float64) {
	long := max(until-r.now, 0)
	r.clock += long / r.law.slowdown(float64(len(r.busy)))
	r.inUse += long * float64(r.out)
	r.now += long
}

// begin gives an item its connection.
func (r *replay) begin(i int) {
	r.waits[i] = max(r.now-r.load.items[i].arrived, 0)
	r.out++
	r.busy.push(entry{r.clock + r.work[i], i})
}

// done notes that an item is done with what it did, and tells whether that was all.
func (r *replay) done(i int) bool {
	if len(r.busy) > 0 && r.busy[0].item == i {
		r.clock = max(r.clock, r.busy.pop().at)
		if fixed := r.load.items[i].fixed; fixed > 0 {
			r.fixed.push(entry{r.now + fixed, i})
			return false
		}
	} else {
		r.fixed.pop()
	}
	r.out--
	r.queue.gone(r.load.items[i].lane)
	return true
}

// entry is an item in a heap.
type entry struct {
	at   float64
	item int
}

// heap has the entry with the least at first.
type heap []entry

func (h *heap) push(e entry) {
	s := append(*h, e)
	i := len(s) - 1
	for i > 0 {
		up := (i - 1) / 2
		if s[up].at <= e.at {
			break
		}
		s[i] = s[up]
		i = up
	}
	s[i] = e
	*h = s
}

func (h *heap) pop() entry {
	s := *h
	first, e := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	if len(s) == 0 {
		return first
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= len(s) {
			break
		}
		if down+1 < len(s) && s[down+1].at < s[down].at {
			down++
		}
		if e.at <= s[down].at {
			break
		}
		s[i] = s[down]
		i = down
	}
	s[i] = e
	return first
}
