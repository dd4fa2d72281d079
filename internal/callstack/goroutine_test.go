package callstack

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGoroutinesAreToldApart(t *testing.T) {
	findGoroutines()
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wait sync.WaitGroup
	for range 1000 {
		wait.Go(func() {
			id := GoroutineAnywhere()
			assert.Equal(t, printedGoroutine(), id, "it is the number that Go prints")
			mu.Lock()
			defer mu.Unlock()
			assert.False(t, seen[id])
			seen[id] = true
		})
	}
	wait.Wait()
}
