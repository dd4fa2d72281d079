package sqllease

import "sync"

// firsts remember what was made of the first keys that came, and of no more: an application
// that makes up values must not make up series of a metric.
type firsts[K comparable, V any] struct {
	mu    sync.RWMutex
	known map[K]V // guarded by mu
}

// mostValues is how many are told apart: values of one attribute, or combinations of the
// application's own.
const mostValues = 128

// get finds what was made of a key. full: of one that is not known, nothing will be kept.
func (f *firsts[K, V]) get(key K) (made V, known, full bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	made, known = f.known[key]
	return made, known, len(f.known) >= mostValues
}

// add keeps what was made of a key, and tells whether there was room.
func (f *firsts[K, V]) add(key K, made V) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, known := f.known[key]; !known && len(f.known) >= mostValues {
		return false
	}
	if f.known == nil {
		f.known = map[K]V{}
	}
	f.known[key] = made
	return true
}

// bounded lets the first values through that it sees, and calls all later ones by the
// conventions' name for what is not told apart.
type bounded struct{ seen firsts[string, struct{}] }

const notToldApart = "_OTHER"

func (b *bounded) of(value string) string {
	_, known, full := b.seen.get(value)
	if known || !full && b.seen.add(value, struct{}{}) {
		return value
	}
	return notToldApart
}
