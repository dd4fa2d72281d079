package main

import (
	"fmt"
	"io"
	"time"

	"github.com/sqllease/sqllease"
)

// This file is the report: what a run has shown, and whether that is all.

// report is a run, as it is printed and judged at its end.
type report struct {
	ran, planned time.Duration
	whole        bool // the run was not interrupted

	rush        map[string]*figures // by endpoint
	stats       sqllease.Stats
	cuts        int64 // sessions that the server cut
	cutsSeen    bool  // cuts is known
	counts      counts
	leakDue     int // leaks that are old enough to have been reported
	leaks, slow []site
	firstLeak   string // as sqllease prints it
	nested      []nesting
	blocked     []blocking
	remedies    []string // against what the server does not show of locks
	logged      []string
	idleLimit   time.Duration // the quiet phase is longer than this
	longCall    time.Duration // Config.SlowCallThreshold
}

// print writes the report, for a terminal of 80 columns or more.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\nWhat the demo showed in %s, on a pool of %s\n", r.length(), plural(r.stats.Limit, "connection"))
	for i, l := range r.lessons() {
		fmt.Fprintf(w, "\n%d. %s: %s\n", i+1, l.title, l.verdict())
		for _, line := range l.lines {
			fmt.Fprintln(w, wrap(line, "   "))
		}
		if l.printed != "" {
			fmt.Fprintf(w, "\n%s", l.printed)
		}
	}
	r.printTrouble(w)
	if wrong := r.wrong(); len(wrong) > 0 {
		printList(w, "FAIL", wrong)
		return
	}
	fmt.Fprintf(w, "\nPASS: %s\n", r.passed())
}

// printTrouble lists what went wrong, in the words of who noticed.
func (r *report) printTrouble(w io.Writer) {
	printList(w, "Errors that the application saw", r.counts.failures)
	printList(w, "Logged meanwhile by the libraries", r.logged)
}

// length is how long the run was.
func (r *report) length() string {
	if r.whole {
		return seconds(r.planned)
	}
	return fmt.Sprintf("%s of %s (interrupted)", seconds(r.ran), seconds(r.planned))
}

// wrong lists what is not as it should be, as far as it can be judged.
func (r *report) wrong() (list []string) {
	for i, l := range r.lessons() {
		if l.missing != "" && l.due {
			list = append(list, fmt.Sprintf("%d was not seen: %s", i+1, l.missing))
		}
	}
	return append(list, r.faults()...)
}

// faults lists what is wrong at any time.
func (r *report) faults() (list []string) {
	add := func(wrong bool, format string, args ...any) {
		if wrong {
			list = append(list, fmt.Sprintf(format, args...))
		}
	}
	add(r.counts.failed > 0, "%d of %s failed", r.counts.failed, plural(r.counts.sent, "request"))
	add(r.stats.Deadlocks > 0, "the pool came to a deadlock")
	add(r.stats.Closed.Dead() > 0, "%s failed in use", plural(r.stats.Closed.Dead(), "connection"))
	add(r.cuts > int64(len(r.counts.refused)), "the server cut %s, and %d had leaked",
		plural(r.cuts, "connection"), len(r.counts.refused))
	add(len(r.logged) > 0, "the libraries logged warnings or errors")
	return list
}

// passed says what the run has shown, if nothing is wrong.
func (r *report) passed() string {
	seen, lessons := 0, r.lessons()
	for _, l := range lessons {
		if l.missing == "" {
			seen++
		}
	}
	without := fmt.Sprintf("%s, and no error", plural(r.counts.sent, "request"))
	if seen == len(lessons) {
		return fmt.Sprintf("all %d were seen; %s.", seen, without)
	}
	return fmt.Sprintf("%d of %d were seen, the others were not due; %s.", seen, len(lessons), without)
}

// printLater says what came after this report, and what of it is wrong.
func (r *report) printLater(w io.Writer, now *report) {
	fmt.Fprintf(w, "\nEnded after %s. Since the report: %s, %s, %s closed in time.\n", seconds(now.ran),
		plural(now.counts.sent-r.counts.sent, "request"),
		plural(now.counts.failed-r.counts.failed, "error"),
		plural(now.stats.Closed.Retired()-r.stats.Closed.Retired(), "connection"))
	switch faults := now.faults(); {
	case len(faults) > 0:
		now.printTrouble(w)
		printList(w, "FAIL", faults)
	case len(r.wrong()) > 0:
		fmt.Fprintln(w, "FAIL: the report says why.")
	default:
		fmt.Fprintln(w, "PASS")
	}
}
