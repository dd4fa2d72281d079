package main

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sqllease/sqllease"
)

// This file collects what sqllease reports.

// findings are the reports so far.
type findings struct {
	mu       sync.Mutex
	leaked   map[uint64]bool      // guarded by mu: the leases that were reported as leaked
	leaks    map[string]*site     // guarded by mu: by place
	first    string               // guarded by mu: the first report of a leak, as it is printed
	slow     map[string]*site     // guarded by mu: by place
	nested   []nesting            // guarded by mu
	blocked  map[string]*blocking // guarded by mu: by place
	remedies []string             // guarded by mu
}

func newFindings() *findings {
	return &findings{
		leaked: map[uint64]bool{}, leaks: map[string]*site{}, slow: map[string]*site{},
		blocked: map[string]*blocking{},
	}
}

// site is a line of code that takes connections which are reported.
type site struct {
	place     string
	count     int
	takenBack int    // how many of its connections sqllease took back
	fix       string // as sqllease says it
}

// nesting is a place where a request that holds a connection waits for another.
type nesting struct {
	holder, waiter string // lines of code
	fix            string // with the limit that such requests need
}

// blocking is a place whose calls wait for a lock that another connection has.
type blocking struct {
	waiter, holder string // lines of code
	count          int
	fix            string // as sqllease says it
	printed        string // the first report, as it is printed
}

// addLeak is sqllease's OnLeak.
func (f *findings) addLeak(l sqllease.Leak) {
	if l.Returned {
		return // it was reported before
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == "" {
		f.first = l.String()
	}
	s := siteOf(f.leaks, l.Stack.Site(), l.Fix())
	if !f.leaked[l.ID] { // it may have been unused for too long, and now be proven as well
		f.leaked[l.ID] = true
		s.count++
	}
	if l.Reclaimed {
		s.takenBack++
	}
}

// addSlowCall is sqllease's OnSlowCall.
func (f *findings) addSlowCall(s sqllease.SlowCall) {
	if s.Returned {
		return // it was reported before
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	place := s.Stack.Site()
	if len(s.Blockers) == 0 {
		siteOf(f.slow, place, s.Fix()).count++
		return
	}
	if f.blocked[place] == nil {
		f.blocked[place] = &blocking{waiter: place, holder: holderOf(s.Blockers), fix: s.Fix(), printed: s.String()}
	}
	f.blocked[place].count++
}

// holderOf returns the line of code that has what all others wait for; empty: it is
// not the application's.
func holderOf(blockers []sqllease.Blocker) string {
	for _, b := range blockers {
		if !b.Waits && b.Lease != nil {
			return b.Lease.Stack.Site()
		}
	}
	return ""
}

// addRemedy takes what an administrator can do so that the server shows more of who
// blocks whom.
func (f *findings) addRemedy(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remedies = append(f.remedies, what)
}

// siteOf returns the site of a report, which may be the first of it.
func siteOf(sites map[string]*site, place, fix string) *site {
	if sites[place] == nil {
		sites[place] = &site{place: place, fix: fix}
	}
	return sites[place]
}

// addNested takes what sqllease logs of a nested acquire.
func (f *findings) addNested(about slog.Value) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nested = append(f.nested, nesting{attr(about, "holder"), attr(about, "waiter"), attr(about, "fix")})
}

// attr returns an attribute of a group as text; empty: it has none such.
func attr(group slog.Value, key string) string {
	for _, a := range group.Group() {
		if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}

// firstLeak returns the first report of a leak, as it is printed.
func (f *findings) firstLeak() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first
}

// leakSites returns the places that leak, the worst first.
func (f *findings) leakSites() []site { return f.list(f.leaks) }

// slowSites returns the places with slow calls, those with most of them first.
func (f *findings) slowSites() []site { return f.list(f.slow) }

func (f *findings) list(sites map[string]*site) []site {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []site
	for s := range maps.Values(sites) {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b site) int {
		return cmp.Or(cmp.Compare(b.count, a.count), strings.Compare(a.place, b.place))
	})
	return list
}

// nestings returns the nested acquires, in the order of their reports.
func (f *findings) nestings() []nesting {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.nested)
}

// blockings returns the places that wait for locks.
func (f *findings) blockings() (list []blocking) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, place := range sortedKeys(f.blocked) {
		list = append(list, *f.blocked[place])
	}
	return list
}

// remedyList returns the remedies.
func (f *findings) remedyList() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.remedies)
}

// at returns what was reported of a function, with a fix; nothing: none was.
func at(sites []site, function string) site {
	for _, s := range sites {
		if strings.HasSuffix(s.place, function) && s.fix != "" {
			return s
		}
	}
	return site{}
}
