package advisor

import (
	"cmp"
	"math"
	"slices"
)

// Refusal is why there is no advice.
type Refusal string

// The reasons.
const (
	// TooFewLeases: fewer than a few hundred leases were recorded.
	TooFewLeases Refusal = "too few leases"
	// TooShort: the recording is only some holds long.
	TooShort Refusal = "too short"
	// LoadTooLow: so few connections were in use at once that it says nothing of a load.
	LoadTooLow Refusal = "load too low"
	// LoadChanges: the load grows or shrinks through the recording.
	LoadChanges Refusal = "load changes"
	// GaveUp: many callers gave up, and nobody knows what they would have done.
	GaveUp Refusal = "callers gave up"
	// ClosedLoop: all connections were in use all the time, and callers ask again when they were
	// served: with more connections they would ask more often.
	ClosedLoop Refusal = "callers ask again when they were served"
	// Overload: callers came faster than they were served, so that the queue grew and grew.
	Overload Refusal = "the queue grows without end"
	// TooFar: the limit is so far above the connections that were seen in use that nobody knows
	// how the server does with them.
	TooFar Refusal = "too far above what was seen"
	// SlowdownUnknown: about as many connections as ever were in use all the time, so that it
	// cannot be seen how the server does with fewer or more.
	SlowdownUnknown Refusal = "the slowdown is not known"
	// FewBursts: the answer depends on one moment or two.
	FewBursts Refusal = "too few bursts"
	// Unsure: another recording might have given another answer.
	Unsure Refusal = "another recording might say otherwise"
	// Conflict: what nested acquires need is more than the server has, or than it can do.
	Conflict Refusal = "the floor is above the ceiling"
)

// What a recording must have at least.
const (
	fewestLeases = 300
	fewestHolds  = 20   // of mean length, one after the other, in its length
	fewestInUse  = 4    // connections at once
	mostGaveUp   = 0.05 // of all callers
	growth       = 1.5  // of the load, from its first third to its last
	growthRank   = 0.6  // correlation of ranks, in 32 blocks: by chance in one of a thousand
	lostTime     = 0.05 // of a recording: how much longer callers wait at its end if it was too much
	fullTime     = 0.9  // from this utilisation on, all connections are in use all the time
)

// unusable tells why a recording says nothing of any limit.
func (l *load) unusable(a *Advice) Refusal {
	hold := 0.0
	for i := range l.items {
		hold += l.items[i].hold()
	}
	served, counted := len(l.items)-l.failed, len(l.items)-a.Limited
	switch {
	case served < fewestLeases, counted < fewestLeases:
		return TooFewLeases
	case l.span < fewestHolds*hold/float64(served):
		return TooShort
	case a.Seen < fewestInUse:
		return LoadTooLow
	}
	return ""
}

// misleading tells why what was recorded would be another load at another limit, or another day.
func (l *load) misleading(a *Advice) Refusal {
	switch full := a.Recorded.Utilisation >= fullTime; {
	case float64(l.failed) > mostGaveUp*float64(len(l.items)):
		return GaveUp
	case full && a.Closed:
		return ClosedLoop
	case l.queueGrows():
		return Overload
	case l.changes():
		return LoadChanges
	}
	return ""
}

// queueGrows tells whether callers waited longer and longer.
func (l *load) queueGrows() bool {
	waits, counts := make([]float64, blocks), make([]float64, blocks)
	for i := range l.items {
		if of := &l.items[i]; !l.isLimited(i) {
			waits[of.block] += of.wait()
			counts[of.block]++
		}
	}
	for b := range waits {
		waits[b] /= max(counts[b], 1)
	}
	first, last := thirds(waits)
	return last-first > lostTime*l.span && rankCorrelation(waits) > growthRank
}

// changes tells whether the load grows through the recording, or shrinks: how many callers come, and
// how long a usual hold is.
func (l *load) changes() bool {
	var holds [blocks][]float64
	for i := range l.items {
		of := &l.items[i]
		holds[of.block] = append(holds[of.block], of.busy+of.fixed)
	}
	loads := make([]float64, blocks)
	for b := range holds {
		loads[b] = float64(len(holds[b])) * median(holds[b])
	}
	first, last := thirds(loads)
	ratio := last / max(first, math.SmallestNonzeroFloat64)
	return (ratio > growth || ratio < 1/growth) && math.Abs(rankCorrelation(loads)) > growthRank
}

// thirds are the means of the first and of the last third.
func thirds(values []float64) (first, last float64) {
	n := len(values) / 3
	for i := range n {
		first += values[i] / float64(n)
		last += values[len(values)-1-i] / float64(n)
	}
	return first, last
}

// rankCorrelation is how well the order of values is that of their size, from -1 to 1 (Spearman).
func rankCorrelation(values []float64) float64 {
	n := len(values)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(values[a], values[b]) })
	ranks := make([]float64, n)
	for from := 0; from < n; {
		to := from + 1
		for to < n && values[order[to]] == values[order[from]] {
			to++
		}
		for _, i := range order[from:to] {
			ranks[i] = float64(from+to-1) / 2
		}
		from = to
	}
	middle := float64(n-1) / 2
	both, time, rank := 0.0, 0.0, 0.0
	for i, r := range ranks {
		x, y := float64(i)-middle, r-middle
		both += x * y
		time += x * x
		rank += y * y
	}
	if rank == 0 {
		return 0
	}
	return both / math.Sqrt(time*rank)
}

// episodes are times in which callers wait longer than the goal has it.
type episodes struct {
	callers []float64 // of each, how many
	last    float64   // when the last of them came
}

// add adds a caller. Whoever comes soon after another is of the same one.
func (b *episodes) add(arrived, soon float64) {
	if len(b.callers) == 0 || arrived-b.last > soon {
		b.callers = append(b.callers, 0)
	}
	b.callers[len(b.callers)-1]++
	b.last = arrived
}

// fewBursts tells whether what counts happened in one moment or two, and not all the time.
func fewBursts(longer *weights, b episodes) bool {
	const allTheTime, fewest = 8, 1.5
	return effective(longer[:]) < allTheTime && effective(b.callers) < fewest
}

// effective is the number of equal parts that a sum would have which is as uneven as this one.
func effective(parts []float64) float64 {
	sum, squares := 0.0, 0.0
	for _, p := range parts {
		sum += p
		squares += p * p
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / squares
}
