package statement

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
)

// Cache remembers what is made of statements. It is bounded in entries and in bytes: of a
// statement that does not fit it is made anew each time.
type Cache[D any] struct {
	read func(query string) *D // set once

	known atomic.Pointer[map[string]*D] // those that are found without a lock; the map is never written to

	mu     sync.Mutex
	fresh  map[string]*D // guarded by mu: those that came since; none of them is known
	wanted int           // guarded by mu: how often since then a lock was needed to find one
}

const most = 2048 // statements that are remembered

// Longest is how many bytes a statement may have that is worth remembering.
const Longest = 4096

// NewCache makes a cache of what read makes of a statement: of one in the caller's memory,
// so that it is to keep no part of it.
func NewCache[D any](read func(query string) *D) *Cache[D] { return &Cache[D]{read: read} }

// Of is what was made of a statement.
func (c *Cache[D]) Of(query string) *D {
	if d := c.knownMap()[query]; d != nil {
		return d
	}
	if d := c.find(query); d != nil {
		return d
	}
	d := c.read(query)
	if len(query) <= Longest {
		c.remember(strings.Clone(query), d)
	}
	return d
}

func (c *Cache[D]) knownMap() map[string]*D {
	if known := c.known.Load(); known != nil {
		return *known
	}
	return nil
}

// find looks among the fresh ones. Once a lock was needed half as often as there
// are statements, these are made known: to copy them costs no more than the locks did.
func (c *Cache[D]) find(query string) *D {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.fresh[query]
	if d == nil {
		return c.knownMap()[query] // it has just become known, or is not there
	}
	known := c.knownMap()
	if c.wanted++; 2*c.wanted >= len(known)+len(c.fresh) {
		all := make(map[string]*D, len(known)+len(c.fresh))
		maps.Copy(all, known)
		maps.Copy(all, c.fresh)
		c.known.Store(&all)
		c.fresh, c.wanted = nil, 0
	}
	return d
}

// remember makes a statement one of the fresh ones. Where there is no room,
// all are forgotten: starting over is cheap, and bounded.
func (c *Cache[D]) remember(query string, d *D) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.knownMap()[query] != nil {
		return // somebody else was quicker
	}
	if len(c.knownMap())+len(c.fresh) >= most {
		c.known.Store(nil)
		c.fresh, c.wanted = nil, 0
	}
	if c.fresh == nil {
		c.fresh = make(map[string]*D)
	}
	c.fresh[query] = d
}
