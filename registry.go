package sqllease

import (
	"cmp"
	"slices"
	"sync"
	"weak"
)

// registry lists what there is of a kind in the process. What is never closed is forgotten once
// nothing else refers to it.
type registry[T any] struct {
	mu    sync.Mutex
	all   map[weak.Pointer[T]]uint64 // guarded by mu: each with its number, by which they are in order
	added uint64                     // guarded by mu: how many there were
}

func (r *registry[T]) add(x *T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.all {
		if p.Value() == nil {
			delete(r.all, p)
		}
	}
	if r.all == nil {
		r.all = map[weak.Pointer[T]]uint64{}
	}
	r.added++
	r.all[weak.Make(x)] = r.added
}

func (r *registry[T]) remove(x *T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, weak.Make(x))
}

// list is all that there is, the oldest first.
func (r *registry[T]) list() (all []*T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	number := map[*T]uint64{}
	for p, n := range r.all {
		if x := p.Value(); x != nil {
			all = append(all, x)
			number[x] = n
		}
	}
	slices.SortFunc(all, func(a, b *T) int { return cmp.Compare(number[a], number[b]) })
	return all
}
