package main

import (
	"fmt"

	"github.com/sqllease/sqllease/internal/drawing"
)

// named is what benchmarks call by a key, and people by a name.
type named struct{ key, name string }

var (
	bare = named{"bare", "database/sql alone"}
	ours = named{"sqllease", "sqllease"}

	// others are the other wrappers that make spans.
	others = []named{{"xsam", "XSAM"}, {"nhatthm", "nhatthm"}, {"uptrace", "uptrace"}}

	// works are what is done, as a table's columns and as a picture say it.
	works   = []named{{"exec", "exec"}, {"row", "1 row"}, {"rows", "100 rows"}, {"prepared", "prepared"}, {"tx", "transaction"}}
	atWorks = []named{
		{"exec", "exec"}, {"row", "query of 1 row"}, {"rows", "query of 100 rows"},
		{"prepared", "prepared query of 1 row"}, {"tx", "transaction of 3 statements"},
	}
)

// wrappers are those of a table: those that make spans, and those of ours and of others
// that a table may have besides.
func wrappers(variants, spanless bool) []named {
	all := []named{bare, ours}
	if variants {
		all = append(all, named{"sqllease-off", "sqllease, reports off"}, named{"sqllease-all", "sqllease, comments on"})
	}
	all = append(all, others...)
	if spanless {
		all = append(all, named{"sqlmw", "ngrok/sqlmw"}, named{"datadog", "Datadog"})
	}
	return all
}

// overheadTables are the same work through each wrapper.
func overheadTables(f *figures) map[string]string {
	nothing := func(telemetry string, among []named) string {
		return timesOf(f, "nothing", telemetry, among) + "\n" + allocsOf(f, telemetry, among)
	}
	return map[string]string{
		"noop":      nothing("noop", wrappers(true, true)),
		"sampled":   nothing("sampled", wrappers(true, false)),
		"unsampled": timesOf(f, "nothing", "unsampled", wrappers(false, false)),
		"sqlite":    timesOf(f, "sqlite", "sampled", wrappers(false, false)),
		"mariadb":   timesOf(f, "mariadb", "sampled", wrappers(false, false)),
	}
}

func timesOf(f *figures, driver, telemetry string, among []named) string {
	return tableOf("µs", among, func(work, wrapper string) string {
		return two(f.micros(call{driver, telemetry, work, wrapper}))
	})
}

func allocsOf(f *figures, telemetry string, among []named) string {
	return tableOf("allocations", among, func(work, wrapper string) string {
		return whole(f.allocs(call{"nothing", telemetry, work, wrapper}))
	})
}

// tableOf has a row of each wrapper, with a cell of each work.
func tableOf(unit string, among []named, cell func(work, wrapper string) string) string {
	t := table{columns: []string{unit}}
	for _, work := range works {
		t.columns = append(t.columns, work.name)
	}
	for _, wrapper := range among {
		row := []string{wrapper.name}
		for _, work := range works {
			row = append(row, cell(work.key, wrapper.key))
		}
		t.row(row...)
	}
	return t.String()
}

// added is what a wrapper adds to an exec with everything sampled.
func added(f *figures, wrapper string) (micros, allocs float64) {
	with, without := call{"nothing", "sampled", "exec", wrapper}, call{"nothing", "sampled", "exec", bare.key}
	return f.micros(with) - f.micros(without), f.allocs(with) - f.allocs(without)
}

// addedByOthers is the least and the most that one of the others adds.
func addedByOthers(f *figures) (micros, allocs [2]float64) {
	for i, wrapper := range others {
		m, a := added(f, wrapper.key)
		if i == 0 {
			micros, allocs = [2]float64{m, m}, [2]float64{a, a}
		}
		micros = [2]float64{min(micros[0], m), max(micros[1], m)}
		allocs = [2]float64{min(allocs[0], a), max(allocs[1], a)}
	}
	return micros, allocs
}

// drawOverhead draws what wrappers that make spans add to each work.
func drawOverhead(f *figures) string {
	time := drawing.Measure{Name: "time, µs", Format: "%.1f"}
	allocs := drawing.Measure{Name: "allocations", Format: "%.0f"}
	chart := drawing.Bars{Heading: drawing.Heading{
		Title:       "What tracing and metrics add to a call",
		Note:        "Every call is traced. The driver does nothing.",
		Description: "For each of five kinds of work, bars for sqllease and three other wrappers: the time and the allocations that they add to the bare driver.",
	}}
	all := append([]named{ours}, others...)
	for _, work := range atWorks {
		var times, allocations []float64
		without := call{"nothing", "sampled", work.key, bare.key}
		for _, wrapper := range all {
			with := call{"nothing", "sampled", work.key, wrapper.key}
			times = append(times, f.micros(with)-f.micros(without))
			allocations = append(allocations, f.allocs(with)-f.allocs(without))
		}
		chart.Groups = append(chart.Groups, work.name)
		time.Values, allocs.Values = append(time.Values, times), append(allocs.Values, allocations)
	}
	for _, wrapper := range all {
		chart.Series = append(chart.Series, wrapper.name)
	}
	chart.Measures = []drawing.Measure{time, allocs}
	return chart.SVG()
}

// String is the table in Markdown, with numbers at the right.
func (t table) String() string {
	out := "|"
	for _, c := range t.columns {
		out += fmt.Sprintf(" %s |", c)
	}
	out += "\n|---|"
	for range t.columns[1:] {
		out += "--:|"
	}
	out += "\n"
	for _, row := range t.rows {
		out += "|"
		for _, cell := range row {
			out += fmt.Sprintf(" %s |", cell)
		}
		out += "\n"
	}
	return out
}
