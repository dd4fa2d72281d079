package sqllease

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
)

// sites count the reports by the place that took the lease, so that a place
// which leaks under load fills neither the log nor the trace.
type sites struct {
	mu     sync.Mutex
	known  map[site]*siteReports // guarded by mu
	others siteReports           // guarded by mu: of the places for which there is no room
}

// site is a place, and what is reported of it.
type site struct {
	placeStack
	class    Class
	returned bool
	taken    bool
}

type siteReports struct {
	times, folded int
	told, last    clock.Instant // when it was last logged, and reported
}

const (
	mostSites = 1024        // places remembered
	foldFor   = time.Minute // between two records of one place
)

// note counts a report, and tells whether it is to be logged.
func (s *sites) note(l *Leak, now clock.Instant) (tell bool) {
	key := site{placeStackOf(callstack.Stack(l.Stack).Outside()), l.Class, l.Returned, l.Reclaimed && l.told}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.known[key]
	if r == nil {
		r = s.addLocked(key, now)
	}
	r.times, r.last = r.times+1, now
	l.Times, l.Folded = r.times, r.folded
	if r.times > 1 && now.Sub(r.told) < foldFor {
		r.folded++
		return false
	}
	r.told, r.folded = now, 0
	return true
}

// addLocked remembers a place, if need be in place of the one that was reported longest
// ago. One that was reported within a minute stays, or it would be told again and again;
// where all were, further places count as one.
func (s *sites) addLocked(key site, now clock.Instant) *siteReports {
	if s.known == nil {
		s.known = make(map[site]*siteReports)
	}
	if len(s.known) >= mostSites {
		oldest := s.oldestLocked()
		if now.Sub(s.known[oldest].last) < foldFor {
			return &s.others
		}
		delete(s.known, oldest)
	}
	r := &siteReports{}
	s.known[key] = r
	return r
}

func (s *sites) oldestLocked() (oldest site) {
	var since *siteReports
	for key, r := range s.known {
		if since == nil || r.last < since.last {
			oldest, since = key, r
		}
	}
	return oldest
}

// list returns the places, those with most reports first.
func (s *sites) list() (out []LeakSite) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, r := range s.known {
		if !key.returned && !key.taken {
			out = append(out, LeakSite{Stack: slices.Clone(key.stack[:key.frames]), Class: key.class, Times: r.times, Last: r.last.Time()})
		}
	}
	slices.SortFunc(out, func(a, b LeakSite) int {
		return cmp.Or(b.Times-a.Times, b.Last.Compare(a.Last))
	})
	return out
}
