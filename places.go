package sqllease

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/callstack"
)

// places count the leases that were unused for a while, by the place in the code that took
// them.
type places struct {
	byStack sync.Map // of *callstack.Known to *place: those that are recognised

	mu     sync.Mutex
	stacks int                   // guarded by mu: in byStack
	known  map[placeStack]*place // guarded by mu
	others place                 // those for which there is no room

	naming sync.Mutex
	named  map[string]time.Duration // guarded by naming: the places that the metric tells apart, and how long theirs were unused before it did
}

// placeStack identifies a place.
type placeStack struct {
	stack  [callstack.Depth]uintptr
	frames int // how much of stack is used
}

// place is what is counted of one.
type place struct {
	stack                 Stack
	name                  func() string
	leases                atomic.Uint64
	held, unused, longest atomic.Int64 // durations
}

// rest is for how long a lease was checked out but unused, as far as that is known.
type rest struct {
	all, longest time.Duration // together, and at a time
}

const (
	mostPlaces  = 1024        // that are told apart
	mostStacks  = 4096        // by which they are found
	mostListed  = 64          // in Stats
	mostNamed   = 32          // in the metric
	leastToName = time.Second // that a place of the metric was unused
)

// count counts a lease that has ended.
func (p *places) count(taken *callstack.Known, held time.Duration, unused rest) {
	at := p.of(taken)
	at.leases.Add(1)
	at.held.Add(int64(held))
	at.unused.Add(int64(unused.all))
	for longest := at.longest.Load(); int64(unused.longest) > longest; longest = at.longest.Load() {
		if at.longest.CompareAndSwap(longest, int64(unused.longest)) {
			return
		}
	}
}

// of is the place of a stack.
func (p *places) of(taken *callstack.Known) *place {
	if known, ok := p.byStack.Load(taken); ok {
		return known.(*place)
	}
	stack := taken.Stack().Outside()
	key := placeStackOf(stack)
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.placeLocked(key, stack)
	if taken.Recognised() && p.stacks < mostStacks {
		p.stacks++
		p.byStack.Store(taken, at)
	}
	return at
}

// placeStackOf is what a place is told apart by, of its stack without what is plumbing.
func placeStackOf(outside callstack.Stack) (key placeStack) {
	key.frames = copy(key.stack[:], outside)
	return key
}

func (p *places) placeLocked(key placeStack, stack callstack.Stack) *place {
	if at := p.known[key]; at != nil {
		return at
	}
	if len(p.known) == mostPlaces {
		return &p.others
	}
	at := &place{stack: Stack(slices.Clone(stack))}
	at.name = sync.OnceValue(at.stack.site)
	if p.known == nil {
		p.known = map[placeStack]*place{}
	}
	p.known[key] = at
	return at
}

func (p *places) all() (all []*place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.known {
		all = append(all, at)
	}
	return all
}

// list returns the places whose leases were unused for longest.
func (p *places) list() (out []HoldSite) {
	for _, at := range p.all() {
		out = append(out, HoldSite{
			Stack: at.stack, Leases: at.leases.Load(), Held: time.Duration(at.held.Load()),
			Unused: time.Duration(at.unused.Load()), Longest: time.Duration(at.longest.Load()),
		})
	}
	slices.SortFunc(out, func(a, b HoldSite) int { return cmp.Compare(b.Unused, a.Unused) })
	return out[:min(len(out), mostListed)]
}

// observe tells for how long the leases of each place were unused, by its name. The first
// places that are worth it have a series each, all others one together: what a place was
// before it had its own stays in that one, so that none ever goes down.
func (p *places) observe(tell func(name string, unused time.Duration)) {
	p.naming.Lock() // before the times are read: what is subtracted from one is never more
	defer p.naming.Unlock()
	unused, others := map[string]time.Duration{}, time.Duration(p.others.unused.Load())
	for _, at := range p.all() {
		unused[at.name()] += time.Duration(at.unused.Load())
	}
	p.nameLocked(unused)
	for name, took := range unused {
		before, named := p.named[name]
		if !named {
			others += took
			continue
		}
		others += before
		tell(name, took-before)
	}
	if others > 0 {
		tell(notToldApart, others)
	}
}

// nameLocked gives places a series of their own, those first that were unused for longest.
func (p *places) nameLocked(unused map[string]time.Duration) {
	for len(p.named) < mostNamed {
		next := ""
		for name, took := range unused {
			if _, named := p.named[name]; !named && took >= max(leastToName, unused[next]+1) {
				next = name
			}
		}
		if next == "" {
			return
		}
		if p.named == nil {
			p.named = map[string]time.Duration{}
		}
		p.named[next] = unused[next]
	}
}
