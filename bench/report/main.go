// Command report makes tables of the results of BenchmarkOverhead, for the
// documentation: for each driver, telemetry and way of calling one, with the
// works as rows and the wrappers as columns. A cell is the shortest time of a
// call and its allocations.
//
//	go run ./report results.txt
//
// With -picture, it also draws what spans and metrics cost on the driver that does
// nothing.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
)

func main() {
	log.SetFlags(0)
	picture := flag.String("picture", "", "the SVG to draw")
	flag.Parse()
	if flag.NArg() == 0 {
		log.Fatal("report: which results? go run ./report results.txt")
	}
	r := results{}
	files := benchfmt.Files{Paths: flag.Args()}
	for files.Scan() {
		if result, ok := files.Result().(*benchfmt.Result); ok {
			r.add(result)
		}
	}
	if err := files.Err(); err != nil {
		log.Fatalf("report: %v", err)
	}
	r.print(os.Stdout)
	if *picture == "" {
		return
	}
	if err := r.table(title("nothing", "sampled", "1")).picture(*picture); err != nil {
		log.Fatalf("report: %v", err)
	}
}

// results are those of all tables, in order of appearance.
type results struct {
	tables []*table
}

// table is one of them.
type table struct {
	title          string
	works, columns []string
	cells          map[[2]string]*cell // by work and wrapper
}

// cell is what was measured of one work through one wrapper.
type cell struct {
	times  []float64 // in seconds
	allocs float64
}

func (r *results) add(b *benchfmt.Result) {
	t := r.table(title(part(b, "driver"), part(b, "telemetry"), part(b, "callers")))
	work, wrapper := part(b, "work"), part(b, "wrapper")
	c := t.cell(work, wrapper)
	if v, ok := b.Value("sec/op"); ok {
		c.times = append(c.times, v)
	}
	if v, ok := b.Value("allocs/op"); ok {
		c.allocs = v
	}
}

// title is that of a table.
func title(driver, telemetry, callers string) string {
	return fmt.Sprintf("%s, telemetry %s, callers %s", driver, telemetry, callers)
}

// part is the value of a key in a benchmark's name.
func part(b *benchfmt.Result, key string) string {
	_, parts := b.Name.Parts()
	for _, p := range parts {
		if value, ok := strings.CutPrefix(string(p), "/"+key+"="); ok {
			return value
		}
	}
	return ""
}

func (r *results) table(title string) *table {
	i := slices.IndexFunc(r.tables, func(t *table) bool { return t.title == title })
	if i < 0 {
		i = len(r.tables)
		r.tables = append(r.tables, &table{title: title, cells: map[[2]string]*cell{}})
	}
	return r.tables[i]
}

func (t *table) cell(work, wrapper string) *cell {
	key := [2]string{work, wrapper}
	if t.cells[key] == nil {
		t.cells[key] = &cell{}
		t.works, t.columns = with(t.works, work), with(t.columns, wrapper)
	}
	return t.cells[key]
}

func with(all []string, one string) []string {
	if slices.Contains(all, one) {
		return all
	}
	return append(all, one)
}

func (r *results) print(w io.Writer) {
	for _, t := range r.tables {
		fmt.Fprintf(w, "**%s**\n\n| | %s |\n|---|%s\n", t.title, strings.Join(t.columns, " | "), strings.Repeat("---|", len(t.columns)))
		for _, work := range t.works {
			fmt.Fprintf(w, "| %s |", work)
			for _, wrapper := range t.columns {
				fmt.Fprintf(w, " %s |", t.cells[[2]string{work, wrapper}])
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w)
	}
}

// String is the shortest of the times, and the allocations.
func (c *cell) String() string {
	if c == nil || len(c.times) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f µs, %.0f", slices.Min(c.times)*1e6, c.allocs)
}
