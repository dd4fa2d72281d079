package livepage

import (
	"fmt"
	"strings"
	"sync"
	"time"
	"weak"

	"github.com/sqllease/sqllease"
)

// advices keeps what the advisor has said: to ask takes some tenths of a second of a core, so it is
// asked only where somebody wants to know, and once a minute at most.
type advices struct {
	mu  sync.Mutex
	all map[weak.Pointer[sqllease.Connector]]advice // guarded by mu, which is held while the advisor thinks: others want the same
}

// advice is what the advisor has said of a pool.
type advice struct {
	text string
	at   time.Time
}

// adviceLasts is for how long it is shown before the advisor is asked again.
const adviceLasts = time.Minute

// of is a paragraph of plain text.
func (a *advices) of(c *sqllease.Connector, now time.Time) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p, said := range a.all {
		if now.Sub(said.at) >= adviceLasts {
			delete(a.all, p)
		}
	}
	key := weak.Make(c)
	if said, known := a.all[key]; known {
		return said.text
	}
	if a.all == nil {
		a.all = map[weak.Pointer[sqllease.Connector]]advice{}
	}
	said := c.Advise(sqllease.Goal{})
	text := strings.TrimPrefix(said.String(), fmt.Sprintf("pool %q: ", said.Pool)) // the page has its name
	a.all[key] = advice{shown(capital(text)), now}
	return a.all[key].text
}

// advised is a document with what the advisor says of the chosen pool.
func (h *handler) advised(doc *document) {
	for i, p := range doc.Pools {
		if p == doc.chosen {
			with := *p // others may look at this one
			with.Advice = h.advices.of(p.connector, time.Now())
			doc.Pools[i], doc.chosen = &with, &with
		}
	}
}
