package advisor

import (
	"cmp"
	"slices"
)

// timeline is how many connections were in use, and how many of them were busy with the server, at
// each moment of a recording. When within its hold a lease was unused is not known: so it counts
// as busy all along, for the share of its hold in which it was.
type timeline struct {
	at    []float64 // the moments at which something changed
	busy  []float64 // from each on, how many were busy
	begin []int     // of each item: the moment at which it got its connection
	end   []int     // and at which it gave it back
	taken []int     // of each item: how many were in use as it began, itself included
}

// change is a moment at which an item gets its connection (by is 1) or gives it back (-1).
type change struct {
	at    float64
	order int // of those at one moment
	by    int
	item  int
}

func newTimeline(items []item) *timeline {
	var changes []change
	for i := range items {
		if of := &items[i]; !of.failed {
			changes = append(changes, change{of.gotten, 1, 1, i}, change{of.ended, after(of), -1, i})
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.order, b.order), cmp.Compare(a.item, b.item))
	})
	t := &timeline{
		at: make([]float64, len(changes)), busy: make([]float64, len(changes)),
		begin: make([]int, len(items)), end: make([]int, len(items)), taken: make([]int, len(items)),
	}
	busy, out := 0.0, 0
	for k, c := range changes {
		busy += float64(c.by) * items[c.item].share()
		out += c.by
		if c.by > 0 {
			t.begin[c.item], t.taken[c.item] = k, out
		} else {
			t.end[c.item] = k
		}
		t.at[k], t.busy[k] = c.at, busy
	}
	return t
}

// after is the order of the end of an item: what is given back is there for whoever gets one at that
// moment, but nobody gives back what he did not get.
func after(of *item) int {
	if of.hold() > 0 {
		return 0
	}
	return 2
}

// share is the share of its hold in which it is busy.
func (i *item) share() float64 {
	if i.busy <= 0 {
		return 0
	}
	return i.busy / i.hold()
}
