package advisor

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"time"
)

// load is a recording, as the rest of the package reads it: in order of arrival, in nanoseconds,
// and with nothing in it that cannot be.
type load struct {
	items  []item
	span   float64 // for how long callers came
	end    float64 // when the last of them was gone
	failed int     // how many got no connection
	in     *timeline
	held   int // connections that were in use all the time, and of which there is no lease
	lanes  lanes
}

// item is a lease.
type item struct {
	arrived float64 // since the first arrival
	granted float64 // when its place in the pool was its own: what follows takes its time at any limit
	gotten  float64 // when it had its connection
	ended   float64
	fixed   float64 // dialing, resetting and being unused: as long at any limit
	busy    float64 // with the server: longer where many are
	unused  float64 // how much of fixed is that
	dialed  bool
	inUse   int // connections in use as it began, as they were counted; 0: not known
	place   int
	lane    int
	block   int // the part of the recording that it arrived in
	failed  bool
	like    int // if it failed: the item whose work it is given
}

// wait is for how long it waited for its place.
func (i *item) wait() float64 { return i.granted - i.arrived }

// hold is for how long its connection was out.
func (i *item) hold() float64 { return i.ended - i.gotten }

// blocks is how many parts of equal length a recording is cut into. What is drawn are whole parts,
// since neighbours are alike: a burst is a burst for all that are in it.
const blocks = 32

// newLoad reads a recording.
func newLoad(of Recording) *load {
	l := &load{}
	first := time.Duration(math.MaxInt64)
	for _, lease := range of.Leases {
		if lease.possible() {
			first = min(first, lease.Arrived)
		}
	}
	for _, lease := range of.Leases {
		if lease.possible() {
			l.items = append(l.items, lease.item(first))
		}
	}
	slices.SortStableFunc(l.items, func(a, b item) int { return cmp.Compare(a.arrived, b.arrived) })
	for i := range l.items {
		l.end = max(l.end, l.items[i].ended)
		l.span = max(l.span, l.items[i].arrived, 1)
		if l.items[i].failed {
			l.failed++
		}
	}
	l.span = max(l.span, float64(of.Length)-float64(first))
	for i := range l.items {
		l.items[i].block = min(int(l.items[i].arrived/l.span*blocks), blocks-1)
	}
	l.lanes = lanesOf(of.Lanes, l.items)
	l.impute()
	l.in = newTimeline(l.items)
	l.held = l.unseen()
	return l
}

// possible tells whether its times are in order, and within a year.
func (l Lease) possible() bool {
	const longest = 365 * 24 * time.Hour
	if l.Arrived < -longest || l.Ended > longest || l.Ended <= l.Arrived || l.Dial < 0 || l.Reset < 0 || l.Unused < 0 {
		return false
	}
	return l.Failed || l.Arrived <= l.Acquired && l.Acquired <= l.Ended
}

func (l Lease) item(first time.Duration) item {
	i := item{arrived: float64(l.Arrived - first), ended: float64(l.Ended - first), place: l.Place, lane: l.Lane, inUse: l.InUse, failed: l.Failed}
	if l.Failed {
		i.granted, i.gotten = i.ended, i.ended
		return i
	}
	own := min(l.Dial, l.Acquired-l.Arrived)
	own += min(l.Reset, l.Acquired-l.Arrived-own)
	unused := min(l.Unused, l.Ended-l.Acquired)
	i.gotten = float64(l.Acquired - first)
	i.granted = i.gotten - float64(own)
	i.fixed, i.unused, i.dialed = float64(own+unused), float64(unused), l.Dial > 0
	i.busy = float64(l.Ended - l.Acquired - unused)
	return i
}

// impute gives those who got no connection the work of whoever came before them from the same
// place, since at another limit they would have got one.
func (l *load) impute() {
	if l.failed == 0 || l.failed == len(l.items) {
		return
	}
	last, other := map[int]int{}, 0
	for pass := range 2 { // in the second, what came first has somebody before it
		for i := range l.items {
			of := &l.items[i]
			if !of.failed {
				last[of.place], other = i, i
				continue
			}
			if pass == 1 {
				like, known := last[of.place]
				if !known {
					like = other
				}
				of.like, of.fixed, of.busy = like, l.items[like].fixed, l.items[like].busy
			}
		}
	}
}

// unseen is how many more connections were in use, as a rule, than there are leases of: leases are
// recorded when they end, and some do not.
func (l *load) unseen() int {
	var more []float64
	for i := range l.items {
		if of := &l.items[i]; !of.failed && of.inUse > 0 {
			more = append(more, float64(of.inUse-l.in.taken[i]))
		}
	}
	if len(more) < len(l.items)/2 {
		return 0
	}
	return max(0, int(median(more)))
}

func (l *load) medianHold() time.Duration {
	var holds []float64
	for i := range l.items {
		if !l.items[i].failed {
			holds = append(holds, l.items[i].hold())
		}
	}
	return max(1, time.Duration(median(holds)))
}

// seenOften is how many leases have to begin with so many connections in use, and in how many
// blocks, before that number counts as seen.
const (
	seenOften  = 20
	seenBlocks = 3
)

// seen is the highest number of connections in use at once that was seen often enough.
func (l *load) seen() int {
	most := slices.Max(l.in.taken)
	at := make([]int, most+1)
	in := make([]uint32, most+1) // the blocks, as bits
	for i := range l.items {
		n := l.in.taken[i] // 0, if it failed
		at[n]++
		in[n] |= 1 << l.items[i].block
	}
	count, where := 0, uint32(0)
	for n := most; n > 0; n-- {
		count += at[n]
		where |= in[n]
		if count >= seenOften && bits.OnesCount32(where) >= seenBlocks {
			return n
		}
	}
	return 0
}
