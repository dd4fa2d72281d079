package sqllease

import (
	"sync"
	"weak"
)

// registry lists what there is of a kind in the process. What is never closed is forgotten once
// nothing else refers to it.
type registry[T any] struct {
	mu  sync.Mutex
	all map[weak.Pointer[T]]struct{} // guarded by mu
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
		r.all = map[weak.Pointer[T]]struct{}{}
	}
	r.all[weak.Make(x)] = struct{}{}
}

func (r *registry[T]) remove(x *T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, weak.Make(x))
}

// list is all that there is.
func (r *registry[T]) list() (all []*T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.all {
		if x := p.Value(); x != nil {
			all = append(all, x)
		}
	}
	return all
}
