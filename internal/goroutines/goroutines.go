// Package goroutines looks at what the goroutines of the process do at one moment: how often
// it may, what it costs, and how to read what the runtime prints of them. It knows nothing of
// those who ask.
package goroutines

import (
	"runtime"
	"sync"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// A look stops the world: the runtime prints the stack of every goroutine meanwhile, which
// takes some 15 µs for each. That cannot be had for some of them only, and a buffer that is
// small makes it no shorter. So looks are rare, and the more rare the longer they take; what
// can be done before or after is done then.

const (
	reportEvery = 5 * time.Second // between two looks for reports
	proveEvery  = time.Minute     // between two runs of the garbage collector for them
	shareOfTime = 1000            // looks for reports take at most one part in so many
	reuseFor    = time.Second     // a look serves all who ask within it, and is forgotten then

	// MostForReports is how many goroutines a process may have at most where nobody asked for
	// the look.
	MostForReports = 10_000
)

// Looks bounds how often the process is looked at. There is one for the process.
type Looks struct {
	reporting sync.Mutex // held for one Report; it comes before mu

	mu    sync.Mutex    // held for one look
	last  *Look         // guarded by mu: for as long as it may serve again
	began clock.Instant // guarded by mu: when the last one for a report began
	next  clock.Instant // guarded by mu: when there may be another

	proved clock.Instant // guarded by reporting: when the runtime was asked last who is blocked for ever

	most int // of goroutines, for a report; 0: MostForReports
}

// Report is a look for reports that nobody waits for. Nil: none is allowed now, since the last
// one was a moment ago, or there are too many goroutines. It may be one that is younger than a
// second. The runtime is asked first which goroutines are blocked for ever, if it can tell, and
// once a minute.
func (l *Looks) Report() *Look {
	if l == nil {
		return nil
	}
	l.reporting.Lock() // whoever comes meanwhile gets the same
	defer l.reporting.Unlock()
	look, allowed := l.allowed(clock.Now())
	if !allowed {
		return look
	}
	if now := clock.Now(); l.proved.IsZero() || now < l.proved || now.Sub(l.proved) >= proveEvery {
		l.proved = now
		proveLeaks()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	look = l.takeLocked()
	l.began, l.next = look.began, look.began.Add(max(reportEvery, shareOfTime*look.Pause))
	return look
}

// allowed tells whether there may be a look for a report, or which one serves again.
func (l *Looks) allowed(now clock.Instant) (again *Look, allowed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if look := l.freshLocked(now); look != nil {
		return look, false
	}
	most := l.most
	if most == 0 {
		most = MostForReports
	}
	early := now < l.next && now >= l.began // else the clock was set back, as in testing/synctest
	return nil, !early && runtime.NumGoroutine() <= most
}

// OnDemand is a look that somebody waits for: a new one, or one that is younger than a second.
func (l *Looks) OnDemand() *Look {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if look := l.freshLocked(clock.Now()); look != nil {
		return look
	}
	return l.takeLocked()
}

func (l *Looks) freshLocked(now clock.Instant) *Look {
	if l.last == nil || now < l.last.began || now.Sub(l.last.began) >= reuseFor {
		return nil
	}
	return l.last
}

// takeLocked looks, and forgets the look after a while: its text may be large.
func (l *Looks) takeLocked() *Look {
	look := take()
	l.last = look
	time.AfterFunc(reuseFor, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.last == look {
			l.last = nil
		}
	})
	return look
}

// Look is what all goroutines did at one moment.
type Look struct {
	Pause time.Duration // how long the world stood still for it

	began    clock.Instant
	records  map[uint64][]byte // by the number of the goroutine; nil: printed twice, so that neither counts
	complete bool              // nothing is missing, and all was understood
}

const (
	mostText     = 64 << 20 // of one look
	perGoroutine = 2 << 10  // a guess, seldom too low: a second try is a second pause
	leastText    = 64 << 10
	page         = 4 << 10
)

func take() *Look {
	began := clock.Now()
	text, whole, pause := stacks(runtime.NumGoroutine()*perGoroutine+leastText, mostText)
	look := read(text, whole)
	look.began, look.Pause = began, pause
	return look
}

// stacks is what the runtime prints, and whether that is all. The buffer's pages are asked of
// the system before, and the text is read after the world stands still.
func stacks(size, most int) (text []byte, whole bool, pause time.Duration) {
	for {
		size = min(size, most)
		text = make([]byte, size)
		for i := 0; i < size; i += page {
			text[i] = ' '
		}
		start := time.Now()
		n := runtime.Stack(text, true)
		pause += time.Since(start)
		if n < size || size == most {
			return text[:n], n < size, pause
		}
		size *= 4
	}
}

// Goroutine is what that goroutine did; false: it was not there, or what was printed of it is
// not understood.
func (l *Look) Goroutine(number uint64) (g Goroutine, ok bool) {
	record := l.records[number]
	if record == nil {
		return Goroutine{}, false
	}
	return parse(string(record))
}

// HadEnded tells whether a goroutine, which was there at some time, had ended when the look
// began: the runtime uses no number twice. False where that is not certain.
func (l *Look) HadEnded(number uint64, there clock.Instant) bool {
	_, printed := l.records[number]
	return l.complete && !printed && number != 0 && there <= l.began
}

// Began is when it began: what was before had happened by then.
func (l *Look) Began() clock.Instant { return l.began }
