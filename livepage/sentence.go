package livepage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqllease/sqllease"
)

// unusedAfter is for how long a connection is unused before the sentence says so: between two
// statements, each one is for a moment.
const unusedAfter = time.Second

// slowAfter is how long a call takes before the sentence says so.
const slowAfter = time.Second

// dialsMatter is for how long the sentence tells of a dial that failed where nobody has tried since.
const dialsMatter = time.Minute

// sentence says how a pool is, the worst first: what stands still, what fails, what leaks, what is
// blocked, who waits, and who has the connections that these wait for.
func sentence(p *pool) (state, string) {
	for _, lead := range []func(*pool) string{standsStill, dialsFail, leaks, isBlocked, refusals} {
		if text := lead(p); text != "" {
			return trouble, text
		}
	}
	held, lost := whoHolds(p), losses(p)
	if p.Waiting == 0 && held == "" && lost == "" && !p.isFull() {
		return well, fmt.Sprintf("All is well: %s in use, nobody waits.", p.inUse())
	}
	how := state(watch)
	if p.Failed > 0 || time.Duration(p.LongestWait) >= time.Second && !p.waitsForLanes() {
		how = trouble
	}
	return how, join(usage(p), held, lost)
}

// join makes one text of those that say something.
func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " ")
}

// isFull tells whether the next caller waits.
func (p *pool) isFull() bool { return p.Limit > 0 && p.InUse >= p.Limit }

// inUse is "2 of 8", or "2" where there is no limit.
func (p *pool) inUse() string {
	if p.Limit == 0 {
		return fmt.Sprint(p.InUse)
	}
	return fmt.Sprintf("%d of %d", p.InUse, p.Limit)
}

// usage says how many are in use, and who waits.
func usage(p *pool) string {
	connections := "connections are"
	if p.Limit == 1 || p.Limit == 0 && p.InUse == 1 {
		connections = "connection is"
	}
	return join(fmt.Sprintf("%s %s in use, %s.", p.inUse(), connections, waits(p)), laneWaits(p))
}

// waits says who waits.
func waits(p *pool) string {
	switch p.Waiting {
	case 0:
		return "nobody waits"
	case 1:
		return fmt.Sprintf("1 caller waits, for %s so far", p.LongestWait)
	}
	return fmt.Sprintf("%d callers wait, the longest for %s", p.Waiting, p.LongestWait)
}

// standsStill is the first part of a pool in which nothing moves.
func standsStill(p *pool) string {
	switch all := p.Out; {
	case p.StandsStill == 0:
		return ""
	case p.Deadlocked:
		return join(fmt.Sprintf("Deadlock for %s: %s held by code that waits for another one%s.", p.StandsStill, theOne(len(all)), by(all)), capital(waits(p))+".")
	default:
		return join(fmt.Sprintf("The pool has stood still for %s: %s checked out but unused%s.", p.StandsStill, theOne(len(all)), by(all)), capital(waits(p))+".", losses(p))
	}
}

// theOne is all of some connections.
func theOne(n int) string {
	switch n {
	case 1:
		return "the only connection is"
	case 2:
		return "both connections are"
	}
	return fmt.Sprintf("all %d connections are", n)
}

// dialsFail is the first part of a pool that gets no new connections.
func dialsFail(p *pool) string {
	d := p.Dials
	if d.Failed == 0 || p.Waiting == 0 && time.Duration(d.Ago) > dialsMatter {
		return ""
	}
	why := ""
	if d.Why != "" {
		why = " (" + d.Why + ")"
	}
	text := fmt.Sprintf("No new connection can be opened: the last %d dials failed%s, the latest %s ago.", d.Failed, why, d.Ago)
	if d.Failed == 1 {
		text = fmt.Sprintf("No new connection can be opened: the last dial failed%s, %s ago.", why, d.Ago)
	}
	return join(text, usage(p), losses(p))
}

// leaks is the first part of a pool with leaks that were reported, and are still there.
func leaks(p *pool) string {
	leaked := filter(p.Out, func(h *holder) bool { return h.Leaked })
	if len(leaked) == 0 {
		return ""
	}
	return join(fmt.Sprintf("%s %s leaked: checked out but unused for %s%s.", count(len(leaked), "connection"), have(len(leaked)), upTo(leaked), by(leaked)),
		usage(p), slowCalls(p), losses(p))
}

// isBlocked is the first part of a pool with calls that wait for a lock.
func isBlocked(p *pool) string {
	blocked := filter(p.Out, func(h *holder) bool { return h.Blocked != "" })
	if len(blocked) == 0 {
		return ""
	}
	first, others := blocked[0], ""
	if n := len(blocked) - 1; n > 0 {
		others = fmt.Sprintf(" So %s %s.", is(n), count(n, "other call"))
	}
	return join(fmt.Sprintf("The call at %s has been blocked for %s by %s.%s", first.Place, first.For, strings.TrimSuffix(clip(first.Blocked, 240), "."), others),
		usage(p), losses(p))
}

// whoHolds tells who has the connections, where that is of interest.
func whoHolds(p *pool) string {
	idle := filter(p.Out, func(h *holder) bool { return h.Use.isUnused() && time.Duration(h.For) >= unusedAfter })
	text := ""
	if n := len(idle); n > 0 {
		text = fmt.Sprintf("%s %s checked out but unused, for %s%s.", count(n, "connection"), is(n), upTo(idle), by(idle))
	}
	if p.Waiting == 0 {
		return text
	}
	if text = join(text, slowCalls(p)); text != "" || p.Busiest.Share < 0.3 {
		return text
	}
	return fmt.Sprintf("In the last minute, %s had %.0f %% of their time.", p.Busiest.Place, 100*p.Busiest.Share)
}

// slowCalls tells of calls that take long, where callers wait.
func slowCalls(p *pool) string {
	slow := filter(p.Out, func(h *holder) bool {
		return (h.Use == inCall || h.Use == inRows) && time.Duration(h.For) >= slowAfter
	})
	n := len(slow)
	if n == 0 || p.Waiting == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s long: for %s so far%s.", count(n, "call"), takes(n), upTo(slow), by(slow))
}

func were(n int) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

func takes(n int) string {
	if n == 1 {
		return "takes"
	}
	return "take"
}

// losses tells of callers who got no connection, of connections that died, and of what was
// reported and is over.
func losses(p *pool) string {
	var text string
	if p.Refused > 0 && !p.Refusing {
		text = fmt.Sprintf("%s %s refused in the last minute, since too many came.", count(p.Refused, "caller"), were(p.Refused))
	}
	if n := p.Failed - p.Refused; n > 0 {
		text = join(text, fmt.Sprintf("%s got no connection in the last minute.", count(n, "caller")))
	}
	if p.Died > 0 {
		text = join(text, fmt.Sprintf("%s died in the last minute.", count(p.Died, "connection")))
	}
	return join(text, lately(p))
}

// lately tells of leaks and standstills of the last minute that are over.
func lately(p *pool) string {
	still, leaks, out := 0, 0, map[uint64]bool{}
	for i := range p.Out {
		out[p.Out[i].Lease] = p.Out[i].Leaked
	}
	for _, r := range p.Reports {
		switch {
		case time.Duration(r.Ago) > lastMinute:
		case r.Kind == string(sqllease.EventStandstill) && p.StandsStill == 0:
			still++
		case r.Kind == string(sqllease.EventLeak) && !out[r.Lease]:
			leaks++
		}
	}
	return join(reported(leaks, "leak"), reported(still, "standstill"))
}

func reported(n int, what string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "1 " + what + " was reported in the last minute, and is over."
	}
	return fmt.Sprintf("%d %ss were reported in the last minute, and are over.", n, what)
}

// by names the places of some: ", all by shop/export.go:150".
func by(of []holder) string {
	places := map[string]int{}
	for i := range of {
		places[of[i].Place]++
	}
	most := ""
	for at, n := range places {
		if most == "" || cmp.Or(cmp.Compare(n, places[most]), cmp.Compare(most, at)) > 0 {
			most = at
		}
	}
	switch n := places[most]; {
	case len(of) == 0:
		return ""
	case len(of) == 1:
		return ", by " + most
	case n == len(of) && n == 2:
		return ", both by " + most
	case n == len(of):
		return ", all by " + most
	case n == 1:
		return fmt.Sprintf(", by %d places, such as %s", len(places), most)
	default:
		return fmt.Sprintf(", %d of them by %s", n, most)
	}
}

// upTo is for how long the longest of them is used as it is: "up to 3 s", or "3 s" of one.
func upTo(of []holder) string {
	longest := seconds(0)
	for i := range of {
		longest = max(longest, of[i].For)
	}
	if len(of) == 1 {
		return longest.String()
	}
	return "up to " + longest.String()
}

func filter(all []holder, is func(*holder) bool) (some []holder) {
	for i := range all {
		if is(&all[i]) {
			some = append(some, all[i])
		}
	}
	return some
}

// capital begins a sentence.
func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
