package main

import "fmt"

// coreTables are what the library's own benchmarks measure: its lock, how it recognises a
// stack, and what grows with a pool.
func coreTables(f *figures) map[string]string {
	return map[string]string{"lock": lock(f), "stacks": stacks(f), "scale": scale(f)}
}

// lock is a call by how many threads make calls.
func lock(f *figures) string {
	t := table{columns: []string{"µs, by threads", "1", "2", "4", "8"}}
	for _, pool := range []named{bare, ours} {
		row := []string{pool.name}
		for _, threads := range t.columns[1:] {
			name := "Contended/" + pool.key
			if threads != "1" {
				name += "/threads=" + threads
			}
			row = append(row, two(f.of(name, "ns/op")/1000))
		}
		t.row(row...)
	}
	return t.String()
}

// stacks is how long it takes to tell a stack, by its depth.
func stacks(f *figures) string {
	t := table{columns: []string{"ns, by frames", "8", "16", "32", "64"}}
	for _, way := range []named{{"callers", "`runtime.Callers`"}, {"recognised", "frame pointers"}} {
		row := []string{way.name}
		for _, frames := range t.columns[1:] {
			row = append(row, two(f.of(fmt.Sprintf("Capture/depth=%s/%s", frames, way.key), "ns/op")))
		}
		t.row(row...)
	}
	return t.String()
}

// scale is a call by how many there are of what a pool has.
func scale(f *figures) string {
	few := table{columns: []string{"µs of an exec, with so many", "10", "1,000", "10,000"}}
	for _, of := range []struct{ name, benchmark string }{
		{"connections that are free", "GrowthOfSessions/sessions=%d"},
		{"connections that are checked out", "GrowthOfLeases/leases=%d/call"},
		{"lines of code that call, by turns", "GrowthOfPlaces/places=%d"},
		{"prepared statements, by turns", "GrowthOfStatements/statements=%d"},
	} {
		row := []string{of.name}
		for _, n := range []int{10, 1000, 10_000} {
			row = append(row, two(f.of(fmt.Sprintf(of.benchmark, n), "ns/op")/1000))
		}
		few.row(row...)
	}
	deep := table{columns: []string{"µs of an exec, from so many frames", "16", "64", "128", "500"}}
	row := []string{"depth of the caller's stack"}
	for _, n := range deep.columns[1:] {
		row = append(row, two(f.of("GrowthOfDepth/frames="+n, "ns/op")/1000))
	}
	deep.row(row...)
	return few.String() + "\n" + deep.String()
}
