package livepage

import (
	"cmp"
	"slices"
)

// heldBy is a line of code with the connections that it has now, or the callers who wait there.
type heldBy struct {
	site
	Count   int     `json:"count"`
	Longest seconds `json:"longest_seconds"`
	Use     use     `json:"use,omitempty"` // of the one that is used so for longest
	UseFor  seconds `json:"use_seconds,omitempty"`
	Lease   uint64  `json:"lease,omitempty"` // that one
	Leaked  bool    `json:"reported_as_leaked,omitempty"`
}

// group says who has the connections, and who waits, by lines of code.
func (p *pool) group() {
	held, waits := map[site]*heldBy{}, map[site]*heldBy{}
	of := func(all map[site]*heldBy, at site) *heldBy {
		if all[at] == nil {
			all[at] = &heldBy{site: at}
		}
		all[at].Count++
		return all[at]
	}
	for i := range p.Out {
		h := &p.Out[i]
		g := of(held, h.site)
		g.Longest, g.Leaked = max(g.Longest, h.Held), g.Leaked || h.Leaked
		if g.Count == 1 || h.For > g.UseFor {
			g.Use, g.UseFor, g.Lease = h.Use, h.For, h.Lease
		}
	}
	for i := range p.Queue {
		g := of(waits, p.Queue[i].site)
		g.Longest = max(g.Longest, p.Queue[i].Waits)
	}
	p.HeldBy, p.WaitsBy = largest(held), largest(waits)
}

func largest(groups map[site]*heldBy) (all []heldBy) {
	for _, g := range groups {
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b heldBy) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(b.Longest, a.Longest), cmp.Compare(a.Place, b.Place))
	})
	return all
}
