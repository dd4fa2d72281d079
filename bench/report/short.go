package main

import (
	"fmt"
	"strings"
)

// summary is what README.md says of costs, with the picture of the waits.
func summary(f *figures) string {
	return list(onServer(f), withoutSDK(f), withSDK(f), atHundred(f)) + "\n" + picture(f)
}

// short is what docs/performance.md says first.
func short(f *figures) string {
	return list(onServer(f), withoutSDK(f), withSDK(f), atHundred(f))
}

func list(points ...string) string { return "- " + strings.Join(points, "\n- ") + "\n" }

func withoutSDK(f *figures) string {
	with, without := exec("nothing", "noop", ours), exec("nothing", "noop", bare)
	further := "allocates nothing more"
	if n := f.allocs(with) - f.allocs(without); n > 0 {
		further = fmt.Sprintf("makes %s more", allocations(n))
	}
	return fmt.Sprintf("Without an OpenTelemetry SDK, an exec on a driver that does nothing takes %s µs instead of %s µs, and %s.",
		two(f.micros(with)), two(f.micros(without)), further)
}

func withSDK(f *figures) string {
	micros, allocs := added(f, ours.key)
	theirMicros, theirAllocs := addedByOthers(f)
	return fmt.Sprintf("With an SDK that records every span and metric, sqllease adds %s µs and %s to that exec; the otelsql wrappers of XSAM, nhatthm and uptrace add %s to %s µs and %s to %s allocations.",
		two(micros), allocations(allocs), two(theirMicros[0]), two(theirMicros[1]), whole(theirAllocs[0]), whole(theirAllocs[1]))
}

func onServer(f *figures) string {
	alone, with := f.micros(exec("mariadb", "sampled", bare)), f.micros(exec("mariadb", "sampled", ours))
	return fmt.Sprintf("On a MariaDB on the same machine, an exec takes %s µs with `database/sql` alone, and %s µs with sqllease and every span and metric recorded. Over a network, it takes longer, and sqllease's part is smaller.",
		two(alone), two(with))
}

func exec(driver, telemetry string, wrapper named) call {
	return call{driver, telemetry, "exec", wrapper.key}
}

func atHundred(f *figures) string {
	w := wait{callers: 100}
	return fmt.Sprintf("When 100 callers share 10 connections and hold each for 1 ms on average, the median wait gets longer (%s ms instead of %s ms), and the worst 1 %% get shorter (they begin at %s ms instead of %s ms): nobody overtakes.",
		waited(w.at(f, ours, "p50")), waited(w.at(f, bare, "p50")), waited(w.at(f, ours, "p99")), waited(w.at(f, bare, "p99")))
}

// picture is that of the waits, with what it shows in words.
func picture(f *figures) string {
	w := wait{callers: 1000}
	return fmt.Sprintf("![Two charts of the wait by number of callers, 20 to 1000. p50: sqllease is above database/sql (%s and %s ms at 1000 callers). p99: sqllease is far below (%s and %s ms)](docs/waits.svg)\n",
		waited(w.at(f, ours, "p50")), waited(w.at(f, bare, "p50")), waited(w.at(f, ours, "p99")), waited(w.at(f, bare, "p99")))
}

// setup is what it was measured on.
func setup(f *figures) string {
	return fmt.Sprintf("Measured on %s cores (%s), %s/%s, %s.\n", f.setup["cores"], f.setup["processor"], f.setup["goos"], f.setup["goarch"], f.setup["go"])
}

// inGoDoc are the sentences of doc.go about what a call takes.
func inGoDoc(f *figures) []string {
	further := func(work string) (micros, allocs float64) {
		with, without := call{"nothing", "noop", work, ours.key}, call{"nothing", "noop", work, bare.key}
		return f.micros(with) - f.micros(without), f.allocs(with) - f.allocs(without)
	}
	micros, byExec := further("exec")
	_, byQuery := further("row")
	return []string{
		fmt.Sprintf("an exec takes about %s more", inWords(micros)),
		fmt.Sprintf("%s; a query takes %s", allocations(byExec), strings.TrimSuffix(allocations(byQuery), " allocation")),
	}
}
