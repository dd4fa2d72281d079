package statement

import (
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
)

// Cache remembers what is made of statements. It is bounded in entries and in bytes. Where
// there is no room for another statement, one has to go. Mostly it is the newest, if it was
// not used again: so statements that come once leave the others alone, and if there are a
// few statements too many, only these take turns. Else chance picks one that was not used
// of late, so that what is not used any more goes in the end.
type Cache[D any] struct {
	read  func(query string) *D // set once
	known atomic.Pointer[table[D]]
	mu    sync.Mutex // held to change the table; nothing is read under it
}

// table has the statements that are remembered, by their hash. To look in it needs no lock:
// whoever looks while it is changed may miss what comes or goes, and finds all the rest.
type table[D any] struct {
	chains []atomic.Pointer[entry[D]]
	all    []*entry[D] // guarded by Cache.mu
	bytes  int         // guarded by Cache.mu: of the statements
}

type entry[D any] struct {
	hash  uint64
	query string
	made  *D
	used  atomic.Bool              // since chance last picked it
	next  atomic.Pointer[entry[D]] // in its chain
}

const (
	most      = 2048    // statements that are remembered
	mostBytes = 2 << 20 // of them together
	fewest    = 64      // chains of a table; a power of two, as it is doubled
)

// Longest is how many bytes a statement may have that is worth remembering.
const Longest = 4096

var seed = maphash.MakeSeed()

// NewCache makes a cache of what read makes of a statement: of one in the caller's memory,
// so that it is to keep no part of it. It depends on nothing else, and is not many times as
// long.
func NewCache[D any](read func(query string) *D) *Cache[D] {
	c := &Cache[D]{read: read}
	c.known.Store(newTable[D](fewest))
	return c
}

// Of is what was made of a statement.
func (c *Cache[D]) Of(query string) *D {
	if len(query) > Longest {
		return c.read(query)
	}
	hash := maphash.String(seed, query)
	if e := c.known.Load().find(hash, query); e != nil {
		return e.made
	}
	return c.remember(&entry[D]{hash: hash, query: strings.Clone(query), made: c.read(query)})
}

// remember adds a statement, unless somebody else was quicker.
func (c *Cache[D]) remember(e *entry[D]) *D {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.known.Load()
	if known := t.find(e.hash, e.query); known != nil {
		return known.made
	}
	for len(t.all) == most || t.bytes+len(e.query) > mostBytes {
		t.forget(t.unused())
	}
	if 2*len(t.all) == len(t.chains) {
		t = t.grown()
		c.known.Store(t)
	}
	t.add(e)
	return e.made
}

func newTable[D any](chains int) *table[D] {
	return &table[D]{chains: make([]atomic.Pointer[entry[D]], chains)}
}

func (t *table[D]) chain(hash uint64) *atomic.Pointer[entry[D]] {
	return &t.chains[hash&uint64(len(t.chains)-1)]
}

func (t *table[D]) find(hash uint64, query string) *entry[D] {
	for e := t.chain(hash).Load(); e != nil; e = e.next.Load() {
		if e.hash != hash || e.query != query {
			continue
		}
		if !e.used.Load() { // not to be written to by all at every call
			e.used.Store(true)
		}
		return e
	}
	return nil
}

func (t *table[D]) add(e *entry[D]) {
	first := t.chain(e.hash)
	e.next.Store(first.Load())
	first.Store(e)
	t.all = append(t.all, e)
	t.bytes += len(e.query)
}

// unused is the index of the statement that goes: the newest one, or one that was not used
// since chance last picked it, or after a few attempts any.
func (t *table[D]) unused() (i int) {
	const (
		mostly   = 8 // all but one time in so many
		attempts = 8
	)
	newest := len(t.all) - 1
	if !t.all[newest].used.Load() && rand.IntN(mostly) != 0 {
		return newest
	}
	for range attempts {
		i = rand.IntN(len(t.all))
		if !t.all[i].used.Swap(false) {
			break
		}
	}
	return i
}

// forget takes a statement out. Whoever has come to it while looking for another finds the
// rest of the chain behind it.
func (t *table[D]) forget(i int) {
	e, last := t.all[i], len(t.all)-1
	t.all[i], t.all[last] = t.all[last], nil
	t.all = t.all[:last]
	t.bytes -= len(e.query)
	at := t.chain(e.hash)
	for at.Load() != e {
		at = &at.Load().next
	}
	at.Store(e.next.Load())
}

// grown is a table with twice as many chains. Its entries are copies: others may be walking
// along the chains of this one.
func (t *table[D]) grown() *table[D] {
	larger := newTable[D](2 * len(t.chains))
	for _, e := range t.all {
		twin := &entry[D]{hash: e.hash, query: e.query, made: e.made}
		twin.used.Store(e.used.Load())
		larger.add(twin)
	}
	return larger
}
