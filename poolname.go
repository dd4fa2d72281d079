package sqllease

import (
	"database/sql/driver"
	"fmt"
	"path"
	"sync"

	"github.com/sqllease/sqllease/internal/drivers"
)

// names are the numbers of the pools that were named after each driver. A number is free
// again once its pool is closed: an application that opens and closes databases for ever
// must not make ever more series of its metrics.
var names = struct {
	sync.Mutex
	taken map[string]map[int]bool // guarded by Mutex
}{taken: map[string]map[int]bool{}}

// poolNumber is what is to be given back.
type poolNumber struct {
	base string
	n    int // 0: the pool has a name of the application's
}

// takeName makes up a name for a pool that was given none.
func takeName(d driver.Driver) (name string, number poolNumber) {
	base := drivers.DialectOf(d)
	if base == "" {
		base = path.Base(drivers.PackageOf(d))
	}
	if base == "." {
		base = "pool"
	}
	names.Lock()
	defer names.Unlock()
	if names.taken[base] == nil {
		names.taken[base] = map[int]bool{}
	}
	n := 1
	for names.taken[base][n] {
		n++
	}
	names.taken[base][n] = true
	if n > 1 {
		name = fmt.Sprintf("%s-%d", base, n)
	} else {
		name = base
	}
	return name, poolNumber{base, n}
}

// free gives a number back.
func (p poolNumber) free() {
	if p.n == 0 {
		return
	}
	names.Lock()
	defer names.Unlock()
	delete(names.taken[p.base], p.n)
}
