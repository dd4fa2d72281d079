package main

import (
	"cmp"
	"fmt"
	"strings"
)

// This file is what there is to see in a run.

// lesson is one thing that the demo shows.
type lesson struct {
	title   string
	lines   []string // what was seen
	printed string   // what sqllease prints of it, as it is
	missing string   // what was not; empty: it was seen
	due     bool     // what is missing should have been seen by now
}

func (l lesson) verdict() string {
	switch {
	case l.missing == "":
		return "SEEN"
	case l.due:
		return "NOT SEEN"
	}
	return "not due yet"
}

// say adds a line.
func (l *lesson) say(format string, args ...any) {
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// lessons are what there is to see, with what was seen of it.
func (r *report) lessons() []lesson {
	return []lesson{r.wait(), r.leak(), r.nesting(), r.slowCall(), r.lock(), r.retirement()}
}

// The functions of the application with a mistake in them, one that they call, and
// one that waits for them.
const (
	exports      = ".(*shop).export"
	invoices     = ".(*shop).invoice"
	finds        = ".(*shop).find"
	statistics   = ".(*shop).statistics"
	stocktakings = ".(*shop).stocktaking"
	deliveries   = ".(*shop).delivery"
)

// enoughWaits is how many acquires must have waited to speak of a queue.
const enoughWaits = 100

// wait is seen in the rush: the pool is too small, so that requests with a
// quick query are slow as well, and their spans say why.
func (r *report) wait() lesson {
	l := lesson{title: "The wait for a connection, apart from the query", due: r.whole}
	l.say("%d of %s waited for a connection. An acquire takes one connection; some requests need several.",
		r.stats.Waits, plural(r.stats.Acquires, "acquire"))
	if len(r.rush) > 0 {
		l.say("In the rush, 99 of 100 requests took no longer than this. Read each column by itself: the longest wait and the longest query are not of one request.")
		l.lines = append(append(l.lines, ""), table(r.rush)...)
	}
	quick, slow := r.rush[quickRequest], r.rush[slowRequest]
	switch {
	case r.stats.Waits < enoughWaits:
		l.missing = fmt.Sprintf("fewer than %d acquires waited", enoughWaits)
	case quick == nil || slow == nil:
		l.missing = "not all requests of the rush were answered"
	case quick.wait.p99() <= quick.querying.p99():
		l.missing = fmt.Sprintf("%s waited for less time than its query took", quickRequest)
	default:
		l.say("")
		l.say("%s is slow because it waits, not because of its query.", quickRequest)
	}
	return l
}

// table shows the figures of the endpoints, in lines that are not to be wrapped.
func table(endpoints map[string]*figures) []string {
	lines := []string{fmt.Sprintf("  %-20s %8s %25s %10s", "request", "requests", "waited for a connection", "query")}
	for _, name := range sortedKeys(endpoints) {
		e := endpoints[name]
		lines = append(lines, fmt.Sprintf("  %-20s %8d %25s %10s", name, e.wait.n, ms(e.wait.p99()), ms(e.querying.p99())))
	}
	return lines
}

// leak is seen in export, which loses a connection for an order in dispute.
func (r *report) leak() lesson {
	l := lesson{title: "Mistake 1 of 4: a leak, with its line of code", due: r.whole || r.leakDue > 0}
	for _, s := range r.leaks {
		l.say("%s", s.place)
		l.say("Connections taken here and never given back: %d.", s.count)
		if s.takenBack > 0 {
			l.say("sqllease proved that nobody can close them any more, and took back %d. It can prove this because the handler does not pass the request's context to its query.", s.takenBack)
		}
		l.say("Fix: %s", s.fix)
	}
	switch found := at(r.leaks, exports).count; {
	case found == 0:
		l.missing = "no leak in export was reported"
	case found < r.leakDue:
		l.missing = fmt.Sprintf("export leaked %s, and %d were reported", plural(r.leakDue, "connection"), found)
	}
	if r.firstLeak != "" {
		l.say("")
		l.say("The first report, as fmt.Println(leak) prints it in Config.OnLeak:")
		l.printed = r.firstLeak
	}
	return l
}

// nesting is seen in invoice, which calls find in a transaction.
func (r *report) nesting() lesson {
	l := lesson{title: "Mistake 2 of 4: a request that holds a connection and waits for another", due: r.whole}
	l.missing = "no such request in invoice was reported"
	for _, n := range r.nested {
		l.say("%s holds a connection,", n.holder)
		l.say("%s waits for another.", n.waiter)
		l.say("If %s do this at once, all %d wait for ever.", plural(r.stats.Limit, "request"), r.stats.Limit)
		l.say("Fix: %s", n.fix)
		if strings.HasSuffix(n.holder, invoices) && strings.HasSuffix(n.waiter, finds) && n.fix != "" {
			l.missing = ""
		}
	}
	return l
}

// slowCall is seen in statistics.
func (r *report) slowCall() lesson {
	l := lesson{title: "Mistake 3 of 4: a slow call, which is no leak", due: r.whole}
	for _, s := range r.slow {
		l.say("%s", s.place)
		l.say("Calls of more than %s: %d. The connection was in use, so this is no leak.", seconds(r.longCall), s.count)
		l.say("Fix: %s", s.fix)
	}
	switch {
	case at(r.slow, statistics).count == 0:
		l.missing = "no slow call in statistics was reported"
	case at(r.leaks, statistics).count > 0:
		l.missing = "the slow call in statistics was reported as a leak"
	}
	return l
}

// lock is seen in stocktaking, which has a lock while it waits for another service.
// The report is of delivery, which waits for the lock.
func (r *report) lock() lesson {
	l := lesson{title: "Mistake 4 of 4: a lock that is kept too long, with its line of code", due: r.whole}
	l.missing = "no call in delivery was reported that waits for a lock of stocktaking"
	for _, b := range r.blocked {
		l.say("%s waits for a lock,", b.waiter)
		l.say("%s has it.", cmp.Or(b.holder, "somebody else"))
		l.say("Calls that waited for more than %s: %d. sqllease asked the server which connection has the lock, and knows which line took that connection.",
			seconds(r.longCall), b.count)
		l.say("Fix: %s", b.fix)
		if strings.HasSuffix(b.waiter, deliveries) && strings.HasSuffix(b.holder, stocktakings) && b.fix != "" {
			l.missing = ""
		}
	}
	for _, remedy := range r.remedies {
		l.say("The server does not show everything to this user. An administrator can change that: %s", remedy)
	}
	if len(r.blocked) > 0 {
		l.say("")
		l.say("The first report, as fmt.Println(call) prints it in Config.OnSlowCall, without its stacks:")
		l.printed, _, _ = strings.Cut(r.blocked[0].printed, "  stack\n")
	}
	return l
}

// retirement is seen in the quiet phase.
func (r *report) retirement() lesson {
	l := lesson{title: "Connections closed before the server would cut them", due: r.whole}
	s := r.stats
	if s.IdleLimit > 0 {
		l.say("The server cuts a connection that is idle for %s. sqllease asked it for this limit.", seconds(s.IdleLimit))
		l.say("sqllease closed %d of %s before, at an age of up to %s.",
			s.Closed.Retired(), plural(s.Dials, "connection"), seconds(s.Lifetime))
		l.say("The others: %d are open, %d were taken back from leaks, %d were closed for other reasons.",
			s.Open, s.Closed.Reclaimed, s.Closed.Total()-s.Closed.Retired()-s.Closed.Reclaimed)
	}
	switch {
	case r.cutsSeen && r.cuts == 0:
		l.say("The server cut none.")
	case r.cutsSeen && r.cuts <= int64(len(r.counts.refused)):
		l.say("The server cut %d, all of them leaked: nobody gave them back for sqllease to close.", r.cuts)
	case r.cutsSeen:
		l.say("The server cut %d. Only %d had leaked.", r.cuts, len(r.counts.refused))
	}
	switch {
	case s.IdleLimit == 0:
		l.missing = "the server's limit was not found"
	case s.Closed.Retired() == 0:
		l.missing = "no connection was closed in time"
		l.due = l.due && s.IdleLimit <= r.idleLimit
	}
	return l
}
