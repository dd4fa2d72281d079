package faults

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// row is what both applications saw of a fault.
type row struct {
	name        string
	bare, lease outcome
}

// table has the rows that have been played.
type table struct {
	mu   sync.Mutex
	rows map[string]row // guarded by mu; by name
}

func (t *table) add(r row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == nil {
		t.rows = map[string]row{}
	}
	t.rows[r.name] = r
}

// all are the rows in the order of the cases.
func (t *table) all() string {
	var b strings.Builder
	for _, g := range groups {
		for _, f := range g.faults {
			if r, played := t.rows[f.name]; played {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", r.name, r.bare.cell(), r.lease.cell())
			}
		}
	}
	return b.String()
}

// cell is an outcome as the table has it.
func (o outcome) cell() string {
	s := fmt.Sprintf("%d of %d, %v", o.failed, o.calls, rounded(o.longest))
	if o.late > 0 {
		s += fmt.Sprintf(", %d after it was over", o.late)
	}
	return s
}

// rounded is a duration as a reader can use it.
func rounded(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
