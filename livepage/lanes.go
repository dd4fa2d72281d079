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
	others, kept := p.Waiting, 0
	for i := range p.Lanes {
		l := &p.Lanes[i]
		if kept += max(0, l.Reserve-l.InUse); l.isFull() && l.Waiting > 0 {
			others -= l.Waiting
			parts = append(parts, fmt.Sprintf("Lane %s: %d of %d in use, %d %s.", l.Name, l.InUse, l.Max, l.Waiting, agree(l.Waiting)))
		}
	}
	switch {
	case len(parts) > 0 && others <= 0:
		parts = append(parts, "Nobody else waits.")
	case others > 0 && kept > 0 && !p.isFull() && p.InUse+p.Dialing+kept >= p.Limit:
		parts = append(parts, fmt.Sprintf("%s %s kept for %s.", count(kept, "connection"), is(kept), p.keeps()))
	}
	return strings.Join(parts, " ")
}

// keeps names the lanes whose connections are kept for them now.
func (p *pool) keeps() string {
	var names []string
	for i := range p.Lanes {
		if p.Lanes[i].Reserve > p.Lanes[i].InUse {
			names = append(names, p.Lanes[i].Name)
		}
	}
	if len(names) == 1 {
		return "lane " + names[0]
	}
	return "lanes " + strings.Join(names, ", ")
}

// waitsForLanes tells whether all who wait do so since their lane is full: as somebody wanted it.
func (p *pool) waitsForLanes() bool {
	others := p.Waiting
	for i := range p.Lanes {
		if p.Lanes[i].isFull() {
			others -= p.Lanes[i].Waiting
		}
	}
	return p.Waiting > 0 && others <= 0 && !p.isFull()
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
	return join(fmt.Sprintf("More callers come than can be served, so some are refused: %d in the last minute%s.", p.Refused, p.refusing()),
		usage(p), whoHolds(p), losses(p))
}

// refusing names the lanes whose callers are refused just now.
func (p *pool) refusing() string {
	var names []string
	for i := range p.Lanes {
		if p.Lanes[i].Refusing {
			names = append(names, p.Lanes[i].Name)
		}
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return ", now in lane " + names[0]
	}
	return ", now in lanes " + strings.Join(names, ", ")
}
