package livepage

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sqllease/sqllease"
)

// The lanes of a pool, where Config.Lanes has any.

// overloaded is how an acquire ends that is refused.
const overloaded sqllease.Outcome = "overloaded"

// readLanes reads how the lanes stand.
func (p *pool) readLanes(stats []sqllease.LaneStats, rec *sqllease.Recording) {
	at := make(map[string]*lane, len(stats))
	p.Lanes = make([]lane, len(stats))
	for i := range stats {
		s := &stats[i]
		p.Lanes[i] = lane{Name: shown(s.Name), InUse: s.InUse, Max: s.Max, Reserve: s.Reserve, Waiting: s.Waiting, Refusing: s.Refusing}
		at[s.Name] = &p.Lanes[i]
	}
	if len(at) == 0 {
		return
	}
	for i := range rec.Waiting {
		if l := at[rec.Waiting[i].Lane]; l != nil {
			l.Longest = max(l.Longest, since(rec.Waiting[i].Start, rec.To))
		}
	}
	for i := range rec.Leases {
		of := &rec.Leases[i]
		if l := at[of.Lane]; l != nil && of.Outcome == overloaded && rec.To.Sub(of.End) <= lastMinute {
			l.Refused++
		}
	}
}

// lanesThen is how the lanes stood, as far as a recording tells. Which dials went on, and whether
// callers were refused just then, is not known.
func (p *pool) lanesThen(rec *sqllease.Recording) (stats []sqllease.LaneStats) {
	if rec.Lanes == nil {
		return nil
	}
	names := []string{sqllease.DefaultLane}
	for _, name := range slices.Sorted(maps.Keys(rec.Lanes)) {
		if name != sqllease.DefaultLane {
			names = append(names, name)
		}
	}
	for _, name := range names {
		s := sqllease.LaneStats{Name: name, Max: rec.Lanes[name].Max, Reserve: rec.Lanes[name].Reserve}
		for i := range rec.Out {
			s.InUse += one(rec.Out[i].Lane == name)
		}
		for i := range rec.Waiting {
			s.Waiting += one(rec.Waiting[i].Lane == name)
		}
		stats = append(stats, s)
	}
	return stats
}

func one(is bool) int {
	if is {
		return 1
	}
	return 0
}

// laneWaits tells of callers who wait for their lane, or for what is kept for another.
func laneWaits(p *pool) string {
	var parts []string
	kept := 0
	for i := range p.Lanes {
		l := &p.Lanes[i]
		if kept += l.kept(); l.isFull() && l.Waiting > 0 {
			parts = append(parts, fmt.Sprintf("Lane %s: %d of %d in use, %d %s.", l.Name, l.InUse, l.Max, l.Waiting, agree(l.Waiting)))
		}
	}
	switch others := p.othersWait(); {
	case len(parts) > 0 && others <= 0:
		parts = append(parts, "Nobody else waits.")
	case others > 0 && kept > 0 && !p.isFull() && p.InUse+p.Dialing+kept >= p.Limit:
		parts = append(parts, fmt.Sprintf("%s %s kept for %s.", count(kept, "connection"), is(kept), p.lanesThat(func(l *lane) bool { return l.kept() > 0 })))
	}
	return strings.Join(parts, " ")
}

// kept is how many connections are kept for it, which it does not use.
func (l *lane) kept() int { return max(0, l.Reserve-l.InUse) }

// othersWait is how many wait, but for those whose lane is full.
func (p *pool) othersWait() int {
	others := p.Waiting
	for i := range p.Lanes {
		if l := &p.Lanes[i]; l.isFull() {
			others -= l.Waiting
		}
	}
	return others
}

// waitsForLanes tells whether all who wait do so since their lane is full: as somebody wanted it.
func (p *pool) waitsForLanes() bool {
	return p.Waiting > 0 && p.othersWait() <= 0 && !p.isFull()
}

// lanesThat names the lanes of which something is true; empty: there are none.
func (p *pool) lanesThat(are func(*lane) bool) string {
	var names []string
	for i := range p.Lanes {
		if are(&p.Lanes[i]) {
			names = append(names, p.Lanes[i].Name)
		}
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "lane " + names[0]
	}
	return "lanes " + strings.Join(names, ", ")
}

// agree is "wait", of so many.
func agree(n int) string {
	if n == 1 {
		return "waits"
	}
	return "wait"
}

// refusals is the first part of a pool that refuses callers just now.
func refusals(p *pool) string {
	if !p.Refusing {
		return ""
	}
	in := p.lanesThat(func(l *lane) bool { return l.Refusing })
	if in != "" {
		in = ", now in " + in
	}
	return join(fmt.Sprintf("More callers come than can be served, so some are refused: %d in the last minute%s.", p.Refused, in),
		usage(p), whoHolds(p), losses(p))
}
