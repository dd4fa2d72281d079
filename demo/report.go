package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sqllease/sqllease"
)

// This file is what the demo prints: lines while it runs, and the report.

const progressHeader = "   time  load     requests  in use  waiting  retired  leaked  errors"

// progressLine says how things stand.
func progressLine(at time.Duration, p phase, c counts, s sqllease.Stats, leaks int) string {
	return fmt.Sprintf("  %4.0fs  %-7s  %8d  %4d/%d  %7d  %7d  %6d  %6d",
		at.Seconds(), p.name, c.sent, s.InUse, s.Limit, s.Waiting, s.Closed.Retired(), leaks, c.failed)
}

// report is a run, as it is printed and judged at its end.
type report struct {
	endpoints map[string]*figures
	stats     sqllease.Stats
	cuts      int64 // sessions that the server cut
	cutsSeen  bool  // cuts is known
	counts    counts
	leakDue   int // leaks that are old enough to have been reported
	leaks     []leakSite
	logged    []string
	whole     bool          // the run was not interrupted
	idleLimit time.Duration // quiet phases are longer than this
}

// print writes the report, for a terminal of 100 columns.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\nWhere the time of the requests went, from their spans\n\n")
	r.printEndpoints(w)
	fmt.Fprintf(w, "\nSessions\n\n")
	r.printSessions(w)
	fmt.Fprintf(w, "\nLeaks\n\n")
	r.printLeaks(w)
	printList(w, "Errors that the application saw", r.counts.failures)
	printList(w, "Logged meanwhile by the libraries", r.logged)
	if wrong := r.wrong(); len(wrong) > 0 {
		printList(w, "Not as it should be", wrong)
		return
	}
	printList(w, "All is as it should be", r.right())
}

const (
	headRow  = "  %-20s %8s   %-17s  %-17s  %s\n"
	unitRow  = "  %-20s %8s  %8s %8s  %8s %8s  %7s  %8s  %5s\n"
	valueRow = "  %-20s %8d  %8s %8s  %8s %8s  %5.0f %%  %6.0f %%  %3.0f %%\n"
)

func (r *report) printEndpoints(w io.Writer) {
	fmt.Fprintf(w, headRow, "", "", "acquire wait, ms", "query time, ms", "share of the requests' time")
	fmt.Fprintf(w, unitRow, "endpoint", "requests", "p50", "p99", "p50", "p99", "waiting", "querying", "other")
	for _, name := range sortedKeys(r.endpoints) {
		e := r.endpoints[name]
		waiting, querying, other := e.shares()
		fmt.Fprintf(w, valueRow, name, e.total.n,
			ms(e.wait.percentile(0.50)), ms(e.wait.percentile(0.99)),
			ms(e.querying.percentile(0.50)), ms(e.querying.percentile(0.99)),
			waiting, querying, other)
	}
}

// shares tells what percentage of the requests' time was spent waiting for a
// connection, in the database, and elsewhere.
func (e *figures) shares() (waiting, querying, other float64) {
	if e.total.sum == 0 {
		return 0, 0, 0
	}
	percent := 100 / float64(e.total.sum)
	waiting, querying = float64(e.wait.sum)*percent, float64(e.querying.sum)*percent
	return waiting, querying, max(0, 100-waiting-querying)
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}

func (r *report) printSessions(w io.Writer) {
	line := func(what, value, how string) { fmt.Fprintf(w, "  %-28s %8s   %s\n", what, value, how) }
	s := r.stats
	line("idle limit of the server", limit(s.IdleLimit), "asked of each new session: @@session.wait_timeout")
	line("lifetime chosen from it", limit(s.Lifetime), "a margin below the limit, less up to 2.5 % at random")
	line("retired in time", fmt.Sprint(s.Closed.Retired()), "sessions closed before the server would have cut them")
	if r.cutsSeen {
		line("cut by the server", fmt.Sprint(r.cuts), "leaked sessions, which nobody gave back in time")
	}
	line("found dead", fmt.Sprint(s.Closed.Dead()), "sessions that failed when they were used")
	line("opened", fmt.Sprint(s.Dials), fmt.Sprintf("never more than %d at once", s.Limit))
	line("handed to a waiting caller", fmt.Sprint(s.Handovers), fmt.Sprintf("%d of %d acquires had to wait", s.Waits, s.Acquires))
	line("errors in the application", fmt.Sprint(r.counts.failed), fmt.Sprintf("in %d requests", r.counts.sent))
}

// limit is a duration of which zero means none.
func limit(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return d.Round(10 * time.Millisecond).String()
}

func (r *report) printLeaks(w io.Writer) {
	if len(r.leaks) == 0 {
		fmt.Fprintln(w, "  none reported")
	}
	for i, site := range r.leaks {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "  %d × %s, %v\n", site.count, site.place, site.first.Class)
		fmt.Fprintln(w, "  The first report of it:")
		fmt.Fprintln(w, indent(site.first.String(), "    "))
	}
}

func printList(w io.Writer, title string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n\n", title)
	for _, l := range lines {
		fmt.Fprintln(w, indent(l, "  "))
	}
}

func indent(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+by)
}

// wrong lists what is not as it should be.
func (r *report) wrong() []string {
	var list []string
	found := r.found()
	if r.counts.failed > 0 {
		list = append(list, fmt.Sprintf("%d of %d requests failed", r.counts.failed, r.counts.sent))
	}
	if r.whole && r.leakDue == 0 {
		list = append(list, "the application has leaked nothing, though it was provoked to")
	}
	if found < r.leakDue {
		list = append(list, fmt.Sprintf("%d leaks were provoked, %d were found", r.leakDue, found))
	}
	if r.stats.IdleLimit == 0 {
		list = append(list, "the idle limit of the server was not found")
	}
	if r.whole && r.stats.IdleLimit <= r.idleLimit && r.stats.Closed.Retired() == 0 {
		list = append(list, "no session was retired, though all were idle beyond the server's limit")
	}
	if r.stats.Closed.Dead() > 0 {
		list = append(list, fmt.Sprintf("%d sessions were found dead", r.stats.Closed.Dead()))
	}
	if r.cuts > int64(len(r.counts.refused)) {
		list = append(list, fmt.Sprintf("the server cut %d sessions, of which only %d had leaked", r.cuts, len(r.counts.refused)))
	}
	if len(r.logged) > 0 {
		list = append(list, "the libraries logged warnings or errors")
	}
	return list
}

// right lists what was proven. It is only asked where nothing is wrong.
func (r *report) right() []string {
	list := []string{fmt.Sprintf("%d requests without an error", r.counts.sent)}
	if r.leakDue > 0 {
		list = append(list, fmt.Sprintf("%d of %d leaks found, with the line that leaks", r.found(), len(r.counts.refused)))
	}
	if r.cutsSeen {
		list = append(list, "no session cut by the server, but for those that leaked")
	}
	return list
}

// found is how many leaks of the planted mistake were reported.
func (r *report) found() int {
	n := 0
	for _, site := range r.leaks {
		if site.first.Class != sqllease.ClassBusy && strings.HasSuffix(site.place, plantedMistake) {
			n += site.count
		}
	}
	return n
}

// plantedMistake is the function that leaks.
const plantedMistake = ".(*shop).export"

// leakSite is a place in the code that leaks, and how often it did.
type leakSite struct {
	place string
	count int
	first sqllease.Leak
}

// leakBook folds leak reports by the place that took the connection.
type leakBook struct {
	mu    sync.Mutex
	known map[uint64]bool       // guarded by mu: the leases that were reported as leaked
	sites map[leakKey]*leakSite // guarded by mu
}

type leakKey struct {
	place string
	class sqllease.Class
}

// add is sqllease's OnLeak.
func (b *leakBook) add(l sqllease.Leak) {
	if l.Returned {
		return // it was reported, and has come back since
	}
	key := leakKey{l.Stack.Site(), l.Class}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sites == nil {
		b.sites, b.known = map[leakKey]*leakSite{}, map[uint64]bool{}
	}
	if l.Class != sqllease.ClassBusy {
		if b.known[l.ID] {
			return // idle for too long, and then proven
		}
		b.known[l.ID] = true
	}
	if b.sites[key] == nil {
		b.sites[key] = &leakSite{place: key.place, first: l}
	}
	b.sites[key].count++
}

// list returns the places, the worst first.
func (b *leakBook) list() []leakSite {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []leakSite
	for _, s := range b.sites {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b leakSite) int {
		return cmp.Or(cmp.Compare(b.count, a.count), strings.Compare(a.place, b.place))
	})
	return list
}

// count is how many leaks were reported.
func (b *leakBook) count() int {
	n := 0
	for _, s := range b.list() {
		n += s.count
	}
	return n
}

// tally counts equal texts. It keeps no more than some: what is wrong a
// thousand times in a thousand words still fits on a screen.
type tally struct {
	texts map[string]int // each with how often
	more  int            // those that were not kept
	total int
}

const tallied = 12

func (t *tally) add(text string) {
	t.total++
	if t.texts == nil {
		t.texts = map[string]int{}
	}
	if t.texts[text] == 0 && len(t.texts) == tallied {
		t.more++
		return
	}
	t.texts[text]++
}

func (t *tally) list() []string {
	var list []string
	for _, text := range sortedKeys(t.texts) {
		list = append(list, fmt.Sprintf("%d × %s", t.texts[text], text))
	}
	if t.more > 0 {
		list = append(list, fmt.Sprintf("and %d others", t.more))
	}
	return list
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
