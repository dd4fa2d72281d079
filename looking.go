package sqllease

import (
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
// never within a call of the application's. The leases must have been read before. It returns
// the look; nil: there was none.
func (r *reports) lookNow(leases ...*Lease) (look *goroutines.Look) {
	if len(leases) == 0 || r.cfg.NoGoroutineLook {
		return nil
	}
	defer r.cfg.recovered("looking at goroutines")
	look = r.looks.Report()
	r.noteNow(look, leases)
	return look
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
	queue := func(number uint64) queued { return queueOf(number, look.Began(), r.gate) }
	for _, l := range leases {
		if l.Stack.ofRuntime() {
			continue // it would seem to have ended
		}
		l.Now = l.hands.nowOf(look, queue)
	}
}

// queues are those of all pools of the process: a goroutine that holds a connection of one may
// wait in that of another.
var queues registry[waits]

// queueOf is the queue in which a goroutine has waited since before that time.
func queueOf(number uint64, at clock.Instant, own admission) queued {
	for _, q := range queues.list() {
		if waited, waits := q.gate.waitOf(number, at); waits {
			return queued{pool: q.cfg.Name, own: q.gate == own, since: waited}
		}
	}
	return queued{}
}
