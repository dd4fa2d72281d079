package sqllease

import (
	"sync"
	"time"
)

// keeperGrace is how long Close waits for who looks after a session: it closes that itself.
const keeperGrace = time.Second

// keepers count who holds a session to look after it, while nobody else can have it.
type keepers struct {
	mu   sync.Mutex
	busy int           // guarded by mu
	none chan struct{} // guarded by mu: closed when nobody is left; nil: nobody waits for it
}

func (k *keepers) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.busy++
}

func (k *keepers) end() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.busy--; k.busy == 0 && k.none != nil {
		close(k.none)
		k.none = nil
	}
}

// wait waits until nobody does, or for so long.
func (k *keepers) wait(most time.Duration) {
	k.mu.Lock()
	none := k.none
	if k.busy > 0 && none == nil {
		none = make(chan struct{})
		k.none = none
	}
	k.mu.Unlock()
	if none == nil {
		return
	}
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-none:
	case <-t.C:
	}
}
