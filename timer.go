package sqllease

import (
	"sync"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// timer is a timer that is made at its first use. It fires on a goroutine of its own.
// Whatever guards what it is armed for guards it.
type timer struct {
	mu   sync.Mutex
	t    *time.Timer // guarded by mu
	sets int         // guarded by mu: how often it was set
}

// at sets it.
func (t *timer) at(at clock.Instant, f func()) { t.in(at.Until(), f) }

func (t *timer) in(d time.Duration, f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sets++
	if t.t == nil {
		t.t = time.AfterFunc(d, f)
		return
	}
	t.t.Reset(d)
}

// stop stops it.
func (t *timer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.t != nil {
		t.t.Stop()
	}
}
