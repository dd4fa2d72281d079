package main

import "maps"

// made is what is made of the figures.
type made struct {
	texts    map[string]map[string]string // the blocks of each document
	pictures map[string]string
}

// documents makes all.
func documents(f *figures) (made, error) {
	page := map[string]string{"short": short(f), "setup": setup(f)}
	maps.Copy(page, overheadTables(f))
	maps.Copy(page, waitTables(f))
	maps.Copy(page, coreTables(f))
	m := made{
		texts: map[string]map[string]string{
			"docs/performance.md": page,
			"README.md":           {"figures": summary(f)},
		},
		pictures: map[string]string{
			"docs/overhead.svg":   drawOverhead(f),
			"docs/waits.svg":      drawWaits(f, always),
			"docs/waits-open.svg": drawWaits(f, atRandom),
		},
	}
	return m, f.complete()
}

// table is a table of a document.
type table struct {
	columns []string
	rows    [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }
