package livepage

import (
	"cmp"
	"slices"
	"strings"
)

// column is one of a table that can be sorted.
type column[T any] struct {
	name  string // in the address
	order func(a, b *T) int
	down  bool // the first click has the largest first
}

func on[T any, K cmp.Ordered](key func(*T) K) func(a, b *T) int {
	return func(a, b *T) int { return cmp.Compare(key(a), key(b)) }
}

var (
	outColumns = []column[holder]{
		{"lane", on(func(h *holder) string { return h.Lane }), false},
		{"place", on(func(h *holder) string { return h.Place }), false},
		{"held", on(func(h *holder) seconds { return h.Held }), true},
		{"use", on(func(h *holder) string { return string(h.Use) }), false},
		{"for", on(func(h *holder) seconds { return h.For }), true},
		{"waited", on(func(h *holder) seconds { return h.Waited }), true},
		{"connection", on(func(h *holder) uint64 { return h.Connection }), false},
	}
	placeColumns = []column[place]{
		{"place", on(func(p *place) string { return p.Place }), false},
		{"held", on(func(p *place) seconds { return p.Held }), true},
		{"unused", on(func(p *place) seconds { return p.Unused }), true},
		{"waited", on(func(p *place) seconds { return p.Waited }), true},
		{"leases", on(func(p *place) int { return p.Leases }), true},
		{"longest", on(func(p *place) seconds { return p.Longest }), true},
		{"failed", on(func(p *place) int { return p.Failed }), true},
	}
	connectionColumns = []column[connection]{
		{"connection", on(func(c *connection) uint64 { return c.Number }), false},
		{"server", on(func(c *connection) uint64 { return c.Server }), false},
		{"age", on(func(c *connection) seconds { return c.Age }), true},
		{"idle", on(func(c *connection) seconds { return c.Idle }), true},
		{"expires", on(expiresAt), false},
	}
)

// expiresAt orders connections by their expiry, those last that have none.
func expiresAt(c *connection) seconds {
	if c.Expires == nil {
		return 1<<63 - 1
	}
	return c.Left
}

// sortTables are the tables that can be sorted.
var sortTables = []string{"out", "places", "connections"}

// sortable tells whether a table can be sorted so: by a column, with a minus before it the other
// way round.
func sortable(table, by string) bool {
	name := strings.TrimPrefix(by, "-")
	switch table {
	case "out":
		return columnOf(outColumns, name) != nil
	case "places":
		return columnOf(placeColumns, name) != nil
	}
	return columnOf(connectionColumns, name) != nil
}

func columnOf[T any](all []column[T], name string) *column[T] {
	for i := range all {
		if all[i].name == name {
			return &all[i]
		}
	}
	return nil
}

// sorted sorts rows as an address says; empty: as they are.
func sorted[T any](rows []T, columns []column[T], how string) []T {
	name, down := strings.CutPrefix(how, "-")
	c := columnOf(columns, name)
	if c == nil {
		return rows
	}
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b T) int {
		if down {
			return c.order(&b, &a)
		}
		return c.order(&a, &b)
	})
	return rows
}

// next is how a click on a header sorts: that way, or the other way if it is so already.
func next[T any](columns []column[T], name, how string) string {
	c := columnOf(columns, name)
	first, other := name, "-"+name
	if c.down {
		first, other = other, first
	}
	if how == first {
		return other
	}
	return first
}
