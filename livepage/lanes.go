package livepage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqllease/sqllease"
)

// A pool of eight has eight lanes, however often its connections are closed and opened: one that is
// opened takes the first lane that is free. So that no lane moves as time goes by, all that is
// recorded is laid, and then what is not in the picture is left out.

// stay is the time for which a connection was there.
type stay struct {
	number, server uint64
	from, to       time.Time // to: zero while it is open
	out            bool
	busy           time.Duration
	lane           int
}

// lay chooses the lanes: of more than fit, those with connections that are out, and then the
// busiest.
func (d *painter) lay(rods map[uint64][]rod, all bool) {
	stays := d.stays(rods)
	lanes := make([]lane, pack(stays))
	for _, s := range stays {
		shows := s.out || s.busy > 0 || d.filter == "" && s.from.Before(d.To) && (s.to.IsZero() || s.to.After(d.From))
		if !shows {
			continue
		}
		l := &lanes[s.lane]
		l.Connection, l.Server, l.Out = s.number, s.server, l.Out || s.out
		l.stays = append(l.stays, s)
	}
	lanes = slices.DeleteFunc(lanes, func(l lane) bool { return len(l.stays) == 0 })
	most := mostLanes
	if all {
		most = allLanes
	}
	d.Hidden = max(0, len(lanes)-most)
	d.Lanes = first(lanes, most)
	d.Pitch = 22
	if len(d.Lanes) > 12 {
		d.Pitch = 16
	}
	for i := range d.Lanes {
		l := &d.Lanes[i]
		l.Y = d.Top + i*d.Pitch
		l.Mid = l.Y + d.Pitch/2 + 4
		for _, s := range l.stays {
			d.at[s.number] = i
		}
	}
	d.Bottom = d.Top + max(1, len(d.Lanes))*d.Pitch
	d.Queue.Y = d.Bottom + axisHeight
	d.Height = d.Queue.Y + queueHeight + 8
	d.Lower = d.Queue.Y + queueHeight - d.Top
}

// first are the lanes that are shown, in their order.
func first(lanes []lane, most int) []lane {
	if len(lanes) <= most {
		return lanes
	}
	order := make([]int, len(lanes))
	busy := make([]time.Duration, len(lanes))
	for i := range lanes {
		order[i] = i
		for _, s := range lanes[i].stays {
			busy[i] += s.busy
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if lanes[a].Out != lanes[b].Out {
			if lanes[a].Out {
				return -1
			}
			return 1
		}
		return cmp.Compare(busy[b], busy[a])
	})
	order = order[:most]
	slices.Sort(order)
	shown := make([]lane, 0, most)
	for _, i := range order {
		shown = append(shown, lanes[i])
	}
	return shown
}

// stays are those of all connections that are known, in the order in which they were opened.
func (d *painter) stays(rods map[uint64][]rod) []*stay {
	known := map[uint64]*stay{}
	rec := &d.pool.recording
	of := func(number, server uint64, from time.Time) *stay {
		if known[number] == nil {
			known[number] = &stay{number: number, server: server, from: from}
		}
		return known[number]
	}
	for i := range rec.Events {
		switch e := &rec.Events[i]; e.Kind {
		case sqllease.EventDialed:
			of(e.Connection, e.ConnectionID, e.At.Add(-e.Took))
		case sqllease.EventClosed:
			of(e.Connection, e.ConnectionID, rec.From).to = e.At
		}
	}
	open := map[uint64]bool{}
	for i := range d.pool.Connections {
		c := &d.pool.Connections[i]
		of(c.Number, c.Server, d.To.Add(-time.Duration(c.Age)))
		open[c.Number] = true
	}
	for number, all := range rods {
		s := of(number, all[0].lease.ConnectionID, all[0].from)
		for i := range all {
			s.busy += all[i].long()
			s.out = s.out || all[i].lease.End.IsZero()
		}
		if last := &all[len(all)-1]; s.to.IsZero() && !s.out && !open[number] && len(open) > 0 {
			s.to = last.to // its end is not recorded
		}
	}
	stays := make([]*stay, 0, len(known))
	for _, s := range known {
		stays = append(stays, s)
	}
	slices.SortFunc(stays, func(a, b *stay) int { return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.number, b.number)) })
	return stays
}

// pack gives each connection the first lane that is free, and tells how many lanes there are.
func pack(stays []*stay) int {
	var free []time.Time // when each lane is; zero: not yet
	for _, s := range stays {
		s.lane = slices.IndexFunc(free, func(at time.Time) bool { return !at.IsZero() && !at.After(s.from) })
		if s.lane < 0 {
			s.lane = len(free)
			free = append(free, time.Time{})
		}
		free[s.lane] = s.to
	}
	return len(free)
}

// Stays are the connections of a lane, each with the millisecond from which on it was there.
func (l lane) Stays() string {
	var b strings.Builder
	for _, s := range l.stays {
		fmt.Fprintf(&b, "%d:%d ", s.number, s.from.UnixMilli())
	}
	return b.String()
}
