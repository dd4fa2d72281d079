package sqllease

import (
	"sync"
	"weak"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/goroutines"
)

// processLooks bounds how often the process is looked at, however many pools it has.
var processLooks = &goroutines.Looks{}

// lookNow notes in leases that are about to be reported what their goroutines do now
// (Lease.Now). Where that is not known, it leaves them as they are: Config.NoGoroutineLook is
// set, the last look was a moment ago, or there are too many goroutines.
//
// It stops the world, for some 15 µs for each goroutine of the process. So it is called once
// for all that is told together, on a goroutine of the library's own, with no lock held, and
// never within a call of the application's. The leases must have been read before.
func (r *reports) lookNow(leases ...*Lease) {
	if len(leases) == 0 || r.cfg.NoGoroutineLook {
		return
	}
	defer r.cfg.recovered("looking at goroutines")
	r.noteNow(r.looks.Report(), leases)
}

// lookAtCreators is lookNow, and tells of each goroutine which one has started it.
// 0: that is not known.
func (r *reports) lookAtCreators(leases []*Lease) (creator func(number uint64) uint64) {
	creator = func(uint64) uint64 { return 0 }
	if len(leases) == 0 || r.cfg.NoGoroutineLook {
		return creator
	}
	defer r.cfg.recovered("looking at goroutines")
	look := r.looks.Report()
	if look == nil {
		return creator
	}
	r.noteNow(look, leases)
	return func(number uint64) uint64 {
		g, _ := look.Goroutine(number)
		return g.Creator
	}
}

// lookOnDemand is lookNow for an application that asks for it.
func (r *reports) lookOnDemand(leases []*Lease) {
	if len(leases) > 0 {
		r.noteNow(r.looks.OnDemand(), leases)
	}
}

func (r *reports) noteNow(look *goroutines.Look, leases []*Lease) {
	if look == nil {
		return
	}
	queue := func(number uint64) queued { return queues.of(number, look.Began(), r.gate) }
	for _, l := range leases {
		if l.Stack.ofRuntime() {
			continue // it would seem to have ended
		}
		l.Now = l.hands.nowOf(look, queue)
	}
}

// queues are those of all pools of the process: a goroutine that holds a connection of one may
// wait in that of another. A pool that is not closed is forgotten once nothing else refers to it.
var queues = registry{pools: map[gatePointer]string{}}

type registry struct {
	mu    sync.Mutex
	pools map[gatePointer]string // guarded by mu: their names
}

func (r *registry) add(pool admission, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pools {
		if p.Value() == nil {
			delete(r.pools, p)
		}
	}
	r.pools[weak.Make(pool.Gate)] = name
}

func (r *registry) remove(pool admission) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pools, weak.Make(pool.Gate))
}

// all are the pools that there are, by name.
func (r *registry) all() map[admission]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[admission]string, len(r.pools))
	for p, name := range r.pools {
		if g := p.Value(); g != nil {
			all[admission{g}] = name
		}
	}
	return all
}

// of is the queue in which a goroutine has waited since before that time.
func (r *registry) of(number uint64, at clock.Instant, own admission) queued {
	for pool, name := range r.all() {
		if waited, waits := pool.waitOf(number, at); waits {
			return queued{pool: name, own: pool == own, since: waited}
		}
	}
	return queued{}
}
