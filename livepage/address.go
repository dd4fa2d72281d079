package livepage

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// address is all that the page's address says of what is shown: a link to it shows the same.
type address struct {
	Pool   string        // its key; empty: the one that needs somebody to look
	Span   time.Duration // how much time the picture has
	fits   bool          // nobody has said how much: as much as is recorded, and standardSpan at most
	Until  time.Time     // its right end, frozen; zero: now
	Place  string        // only places with this in their name
	All    bool          // all connections, not only the first
	Lease  uint64        // the lease that is pinned; 0: none
	Look   bool          // look at what the goroutines do now
	Advise bool          // ask the advisor
	At     point         // where somebody pointed in the picture
	sort   map[string]string
}

// point is a place in the picture.
type point struct {
	Connection uint64
	At         time.Time
}

const (
	standardSpan = 2 * time.Minute
	shortestSpan = 5 * time.Second
	longestSpan  = 2 * time.Hour
)

// spans are the steps of the zoom.
var spans = []time.Duration{
	5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
	10 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour,
}

// addressOf reads an address. What cannot be meant is left out.
func addressOf(q url.Values) address {
	a := address{Pool: shown(q.Get("pool")), Span: standardSpan, fits: true, Place: clip(shown(q.Get("place")), 200), All: q.Get("tracks") == "all", Look: q.Get("now") == "1", Advise: q.Get("advise") == "1", sort: map[string]string{}}
	if d, err := time.ParseDuration(q.Get("span")); err == nil {
		a.Span, a.fits = min(max(d, shortestSpan), longestSpan), false
	}
	a.Until = timeOf(q.Get("until"))
	a.Lease = numberOf(q.Get("lease"))
	if number, at, ok := strings.Cut(q.Get("at"), "."); ok {
		a.At.Connection = numberOf(number)
		a.At.At = timeOf(at)
	}
	for _, table := range sortTables {
		if by := q.Get("sort_" + table); sortable(table, by) {
			a.sort[table] = by
		}
	}
	return a
}

// numberOf reads a number; zero: it is none.
func numberOf(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// timeOf reads milliseconds since 1970; zero: it is no such time.
func timeOf(text string) time.Time {
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms <= 0 || ms > 1<<53 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// String is the address, relative to where the page is mounted.
func (a address) String() string {
	q := url.Values{}
	set := func(key, value string) {
		if value != "" {
			q.Set(key, value)
		}
	}
	set("pool", a.Pool)
	if !a.fits {
		set("span", spanText(a.Span))
	}
	if !a.Until.IsZero() {
		set("until", strconv.FormatInt(a.Until.UnixMilli(), 10))
	}
	set("place", a.Place)
	if a.All {
		set("tracks", "all")
	}
	if a.Lease != 0 {
		set("lease", strconv.FormatUint(a.Lease, 10))
	}
	if a.Look {
		set("now", "1")
	}
	if a.Advise {
		set("advise", "1")
	}
	for table, by := range a.sort {
		set("sort_"+table, by)
	}
	return "?" + q.Encode()
}

// spanText is a span as an address has it: "2m", and not "2m0s".
func spanText(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprint(d)
}

// The links of the page: each is the address with one thing changed.

func (a address) ofPool(key string) address {
	a.Pool, a.Lease, a.Place, a.All = key, 0, "", false
	return a
}

func (a address) withSpan(d time.Duration) address { a.Span, a.fits = d, false; return a }
func (a address) withUntil(t time.Time) address    { a.Until = t; return a }
func (a address) withLease(id uint64) address      { a.Lease, a.Look = id, false; return a }
func (a address) withPlace(place string) address   { a.Place = place; return a }
func (a address) withAll(all bool) address         { a.All = all; return a }
func (a address) withLook() address                { a.Look = true; return a }
func (a address) withAdvice(asked bool) address    { a.Advise = asked; return a }

func (a address) sorted(table, by string) address {
	to := map[string]string{table: by}
	for other, how := range a.sort {
		if other != table {
			to[other] = how
		}
	}
	a.sort = to
	return a
}

// fit chooses how much time the picture has, where nobody has said so.
func (a *address) fit(recorded time.Duration) {
	if !a.fits || a.Span != standardSpan {
		return
	}
	for _, d := range spans[1:] {
		if a.Span = d; d >= recorded || d >= standardSpan {
			return
		}
	}
}

// zoomed is the next span that is shorter, or longer; the same where there is none.
func (a address) zoomed(in bool) address {
	if in {
		for _, d := range slices.Backward(spans) {
			if d < a.Span {
				return a.withSpan(d)
			}
		}
		return a
	}
	for _, d := range spans {
		if d > a.Span {
			return a.withSpan(d)
		}
	}
	return a
}
