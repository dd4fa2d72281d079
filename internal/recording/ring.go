// Package recording keeps the last of something, in memory that does not grow. It knows
// nothing of what it keeps.
package recording

import (
	"sync"
	"sync/atomic"
)

// Ring keeps the last of what is added to it, once it has a size. Its zero value keeps nothing.
type Ring[T any] struct {
	on atomic.Bool // it has a size: read before each Add, so that nothing is made for one that is off

	mu    sync.Mutex
	kept  []T    // guarded by mu
	added uint64 // guarded by mu: to these; the next goes to its remainder
}

// On tells whether anything is kept.
func (r *Ring[T]) On() bool { return r.on.Load() }

// Resize has it keep so many from now on; zero or less: none. What it has is let go, unless the
// size is what it was: then nothing has changed.
func (r *Ring[T]) Resize(n int) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n = max(n, 0); n == len(r.kept) {
		return false
	}
	r.kept, r.added = nil, 0
	if n > 0 {
		r.kept = make([]T, n)
	}
	r.on.Store(n > 0)
	return true
}

// Add keeps one more, which is copied.
func (r *Ring[T]) Add(x *T) {
	r.mu.Lock()
	if len(r.kept) > 0 { // else it was turned off meanwhile
		r.kept[r.added%uint64(len(r.kept))] = *x
		r.added++
	}
	r.mu.Unlock()
}

// All is a copy of what is kept, the oldest first. whole: nothing was let go since it has its size.
func (r *Ring[T]) All() (all []T, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := uint64(len(r.kept))
	if r.added <= size {
		return append(all, r.kept[:r.added]...), true
	}
	at := r.added % size
	return append(append(make([]T, 0, size), r.kept[at:]...), r.kept[:at]...), false
}

// standard is how many leases a new pool records; zero: none.
var standard atomic.Int64

// Standard is how many leases a new pool records from its start; zero: none.
func Standard() int { return int(standard.Load()) }

// SetStandard sets that.
func SetStandard(n int) { standard.Store(int64(max(n, 0))) }
