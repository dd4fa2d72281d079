package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/sqllease/sqllease/internal/drawing"
)

// bare is the column of the driver without a wrapper.
const bare = "bare"

// named is a column or a row of the results, and its name in the picture.
type named struct{ key, name string }

// shown are the wrappers that make spans, and drawn are the works: the picture
// has what each wrapper adds to each work.
var (
	shown = []named{{"sqllease", "sqllease"}, {"xsam", "XSAM"}, {"nhatthm", "nhatthm"}, {"uptrace", "uptrace"}}
	drawn = []named{
		{"exec", "exec"}, {"row", "query of 1 row"}, {"rows", "query of 100 rows"},
		{"prepared", "prepared query of 1 row"}, {"tx", "transaction of 3 statements"},
	}
)

// picture draws a table: what wrappers add to the time of each work, and to its allocations.
func (t *table) picture(file string) error {
	time := drawing.Measure{Name: "time, µs", Format: "%.1f"}
	allocs := drawing.Measure{Name: "allocations", Format: "%.0f"}
	chart := drawing.Bars{Heading: drawing.Heading{
		Title:       "What tracing and metrics add to a call",
		Note:        "Every call is traced. The driver does nothing.",
		Description: "For each of five kinds of work, bars for sqllease and three other wrappers: the time and the allocations that they add to the bare driver.",
	}}
	for _, work := range drawn {
		var times, allocations []float64
		for _, wrapper := range shown {
			c, without := t.cells[[2]string{work.key, wrapper.key}], t.cells[[2]string{work.key, bare}]
			if c == nil || without == nil {
				return fmt.Errorf("%s: there is no %s of %s and of %s", t.title, work.key, wrapper.key, bare)
			}
			times = append(times, (slices.Min(c.times)-slices.Min(without.times))*1e6)
			allocations = append(allocations, c.allocs-without.allocs)
		}
		chart.Groups = append(chart.Groups, work.name)
		time.Values, allocs.Values = append(time.Values, times), append(allocs.Values, allocations)
	}
	for _, wrapper := range shown {
		chart.Series = append(chart.Series, wrapper.name)
	}
	chart.Measures = []drawing.Measure{time, allocs}
	return os.WriteFile(file, []byte(chart.SVG()), 0o644)
}
