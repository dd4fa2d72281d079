package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// figures are what was measured.
type figures struct {
	setup  map[string]string             // the processor, for one
	values map[string]map[string]float64 // by benchmark and unit
	used   map[string]map[string]bool    // those that were asked for
	absent []string                      // those of them that there are none of
}

func newFigures() *figures {
	return &figures{setup: map[string]string{}, values: map[string]map[string]float64{}, used: map[string]map[string]bool{}}
}

// read reads benchmarks' results. What was measured several times is one figure.
func read(file string) (*figures, error) {
	f := newFigures()
	all := map[string]map[string][]float64{}
	files := benchfmt.Files{Paths: []string{file}}
	for files.Scan() {
		r, ok := files.Result().(*benchfmt.Result)
		if !ok {
			continue
		}
		for _, c := range r.Config {
			if c.File { // else it is about the file
				f.setup[c.Key] = string(c.Value)
			}
		}
		name := nameOf(r.Name)
		if all[name] == nil {
			all[name] = map[string][]float64{}
		}
		for _, v := range r.Values {
			if v.OrigUnit != "" { // nanoseconds, not seconds
				v.Value, v.Unit = v.OrigValue, v.OrigUnit
			}
			all[name][v.Unit] = append(all[name][v.Unit], v.Value)
		}
	}
	for name, units := range all {
		f.values[name] = map[string]float64{}
		for unit, values := range units {
			f.values[name][unit] = typical(name, values)
		}
	}
	return f, files.Err()
}

// nameOf is a benchmark's name without the number of threads, which is the same for all
// but those that compare them.
func nameOf(n benchfmt.Name) string {
	base, parts := n.Parts()
	name := string(base)
	for _, p := range parts {
		if p[0] == '/' {
			name += string(p)
		} else if strings.HasPrefix(name, "Contended/") {
			name += "/threads=" + string(p[1:])
		}
	}
	return name
}

// typical is the figure of several.
func typical(name string, values []float64) float64 {
	slices.Sort(values)
	base, _, _ := strings.Cut(name, "/")
	switch base {
	case "Waits": // in virtual time nothing comes between
		return values[len(values)/2]
	case "Contended", "Saturated": // in the smallest, callers may not have met
		return values[len(values)/4]
	}
	return values[0] // all that comes between makes a call longer
}

// of is a figure.
func (f *figures) of(name, unit string) float64 {
	v, ok := f.values[name][unit]
	if !ok {
		f.absent = append(f.absent, name+" "+unit)
	}
	if f.used[name] == nil {
		f.used[name] = map[string]bool{}
	}
	f.used[name][unit] = true
	return v
}

// complete tells whether all that was asked for was there.
func (f *figures) complete() error {
	if len(f.absent) > 0 {
		return fmt.Errorf("not measured: %s", strings.Join(f.absent, ", "))
	}
	return nil
}

// shown are those that were asked for.
func (f *figures) shown() *figures {
	s := newFigures()
	for _, key := range []string{"go", "goos", "goarch", "processor", "cores"} {
		s.setup[key] = f.setup[key]
	}
	for name, units := range f.used {
		s.values[name] = map[string]float64{}
		for unit := range units {
			s.values[name][unit] = f.values[name][unit]
		}
	}
	return s
}

// String is how a benchmark would print them.
func (f *figures) String() string {
	var out strings.Builder
	for _, key := range slices.Sorted(maps.Keys(f.setup)) {
		fmt.Fprintf(&out, "%s: %s\n", key, f.setup[key])
	}
	for _, name := range slices.Sorted(maps.Keys(f.values)) {
		fmt.Fprintf(&out, "Benchmark%s 1", name)
		for _, unit := range slices.Sorted(maps.Keys(f.values[name])) {
			fmt.Fprintf(&out, " %.4g %s", f.values[name][unit], unit)
		}
		fmt.Fprintln(&out)
	}
	return out.String()
}

// call is what a call of a work takes through a wrapper.
type call struct{ driver, telemetry, work, wrapper string }

func (c call) name() string {
	return fmt.Sprintf("Overhead/driver=%s/telemetry=%s/work=%s/wrapper=%s", c.driver, c.telemetry, c.work, c.wrapper)
}

// micros is its time in microseconds.
func (f *figures) micros(c call) float64 { return f.of(c.name(), "ns/op") / 1000 }

// allocs is how often it allocates.
func (f *figures) allocs(c call) float64 { return f.of(c.name(), "allocs/op") }

// wait is a load on a pool: so many callers who come again at once, or callers who come at
// random, by the share of what the connections can serve.
type wait struct {
	hold          string // how long connections are held
	callers, load int
	pool          string
}

func (w wait) name() string {
	load := fmt.Sprintf("callers=%d", w.callers)
	if w.load > 0 {
		load = fmt.Sprintf("load=%d", w.load)
	}
	return fmt.Sprintf("Waits/hold=%s/%s/pool=%s", cmp.Or(w.hold, "exponential"), load, w.pool)
}

// millis is how long callers wait: p50 or p99.
func (f *figures) millis(w wait, which string) float64 { return f.of(w.name(), which+"-ms") }
