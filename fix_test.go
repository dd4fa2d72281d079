package sqllease

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestAHolderThatIsStuckInGoIsNotTheFaultOfTheCode(t *testing.T) {
	stuck := Leak{Lease: Lease{Now: []Goroutine{{Stack: "sync.(*Cond).Wait(…)\ndatabase/sql.(*closingMutex).RLock(…)"}}}}
	for version, is := range map[string]bool{"go1.26.4": false, "go1.27rc2": true, "go1.27.0": true, "go1.27.0 X:nodwarf5": true, "go1.27.1": false, "go1.27.10": false} {
		assert.Equal(t, is, stuck.isStuckIn(version), version)
		assert.False(t, Leak{}.isStuckIn(version), version)
	}
}
