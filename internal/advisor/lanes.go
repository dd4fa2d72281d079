package advisor

// Lanes are shares of the pool. In a replay, as in the pool, whoever has waited longest is served
// first of those who may be: a lane has no more connections than its Max, and what others have
// reserved is not for it.
//
// How long callers wait for their lane's Max is not changed by any limit of the pool. So their waits
// do not count for the goal.

// lanes are those of a load.
type lanes struct {
	of    []Lane  // one at least
	items [][]int // of each, in order of arrival; nil: there is one lane, and these are all
	kept  int     // what is reserved, together
}

func lanesOf(of []Lane, items []item) (l lanes) {
	l.of = of
	for i := range items {
		if items[i].lane < 0 || items[i].lane >= len(of) {
			items[i].lane = 0
		}
	}
	if len(of) == 0 {
		l.of = make([]Lane, 1)
		return l
	}
	l.items = make([][]int, len(of))
	for i := range items {
		l.items[items[i].lane] = append(l.items[items[i].lane], i)
	}
	for _, lane := range of {
		l.kept += max(lane.Reserve, 0)
	}
	return l
}

// isLimited tells whether an item's lane has a Max.
func (l *load) isLimited(i int) bool { return l.lanes.of[l.items[i].lane].Max > 0 }

// counted are the waits, a value for each item, of those that count, to be sorted.
func (l *load) counted(waits []float64) []float64 {
	counted := make([]float64, 0, len(waits))
	for i, wait := range waits {
		if !l.isLimited(i) {
			counted = append(counted, wait)
		}
	}
	return counted
}

// queue is who waits in a replay: all who have arrived, and were not served.
type queue struct {
	lanes *lanes
	next  []int // of each lane, its first item that was not served, as an index of lanes.items
	used  []int // of each lane, connections
	kept  int   // reserved, and not used
}

// anew is the same room, for a replay from the beginning.
func (q queue) anew(l *lanes) queue {
	if q.next == nil {
		q.next, q.used = make([]int, len(l.of)), make([]int, len(l.of))
	}
	clear(q.next)
	clear(q.used)
	q.lanes, q.kept = l, l.kept
	return q
}

// pop is the item that is served next, of those that came before an item; -1: there is none.
func (q *queue) pop(arrived, out, limit int) int {
	if q.lanes.items == nil {
		if q.next[0] == arrived {
			return -1
		}
		q.next[0]++
		return q.next[0] - 1
	}
	first, of := arrived, -1
	for lane, items := range q.lanes.items {
		if n := q.next[lane]; n < len(items) && items[n] < first && !q.bars(lane, out, limit) {
			first, of = items[n], lane
		}
	}
	if of < 0 {
		return -1
	}
	q.next[of]++
	if q.used[of]++; q.used[of] <= q.lanes.of[of].Reserve {
		q.kept--
	}
	return first
}

// bars tells whether a lane may have no other connection, where so many are out.
func (q *queue) bars(lane, out, limit int) bool {
	l := q.lanes.of[lane]
	switch {
	case l.Max > 0 && q.used[lane] >= l.Max:
		return true
	case limit <= q.lanes.kept || q.used[lane] < l.Reserve: // nothing is reserved at a limit that is too low for it
		return false
	}
	return out+q.kept >= limit
}

// gone notes that a lane has given a connection back.
func (q *queue) gone(lane int) {
	if q.lanes.items == nil {
		return
	}
	if q.used[lane]--; q.used[lane] < q.lanes.of[lane].Reserve {
		q.kept++
	}
}
