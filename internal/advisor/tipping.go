package advisor

// A pool that is full for a moment, with a server that slows down, may never recover: if the server gets
// less done with all connections busy than comes in, the queue only grows. With a smaller limit it gets more
// done, and the queue goes away. A recording may not show it, since the pool was never full in it. But
// it follows from the slowdown.

// tips is the first limit of a list, above the one with which most gets done, from which on the pool
// gets less done than comes in, once it is full. If there is none, it is the length of the list.
func (l *load) tips(list []int, by law, work []float64) int {
	busy, fixed := 0.0, 0.0
	for i := range l.items {
		busy += work[i]
		fixed += l.items[i].fixed
	}
	callers := float64(len(l.items))
	most, recovers := 0.0, false
	for k, limit := range list {
		done := throughput(max(float64(limit-l.held), 1), by, busy/callers, fixed/callers)
		most = max(most, done)
		switch enough := done*l.span >= callers; {
		case enough:
			recovers = true
		case recovers && done < most:
			return k
		}
	}
	return len(list)
}

// throughput is how many callers are served in a nanosecond if all connections are in use: each of them
// is busy for a while, which depends on how many are, and then has something else to do.
func throughput(connections float64, by law, busy, fixed float64) float64 {
	if busy <= 0 {
		return connections / fixed
	}
	served := func(n float64) float64 { return n / (busy * by.slowdown(n)) }
	least, most := 0.0, max(connections, 1)
	for range 40 { // how many are busy then
		n := (least + most) / 2
		if n+served(n)*fixed < connections {
			least = n
		} else {
			most = n
		}
	}
	return served(least)
}
