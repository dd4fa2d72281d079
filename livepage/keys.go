package livepage

import (
	"fmt"
	"sync"
	"weak"

	"github.com/sqllease/sqllease"
)

// keys are the names by which pools are told apart: their own, with a number where several share
// one. A pool keeps its key, since addresses have it.
type keys struct {
	mu    sync.Mutex
	known map[weak.Pointer[sqllease.Connector]]string // guarded by mu: of the pools that were there last
}

// of are the keys of these pools.
func (k *keys) of(pools []*sqllease.Connector) (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, taken, names := map[weak.Pointer[sqllease.Connector]]string{}, map[string]bool{}, map[string]bool{}
	for _, c := range pools {
		names[shown(c.Name())] = true
		if key, is := k.known[weak.Make(c)]; is {
			known[weak.Make(c)], taken[key] = key, true
		}
	}
	for _, c := range pools {
		key, is := known[weak.Make(c)]
		if !is {
			key = free(shown(c.Name()), taken, names)
			known[weak.Make(c)], taken[key] = key, true
		}
		all = append(all, key)
	}
	k.known = known
	return all
}

// free is a key for a pool of that name which no other has, nor the name of another.
func free(name string, taken, names map[string]bool) string {
	key := name
	for n := 2; taken[key] || key != name && names[key]; n++ {
		key = fmt.Sprintf("%s (%d)", name, n)
	}
	return key
}
