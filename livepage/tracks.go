package livepage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqllease/sqllease"
)

// A pool of eight has eight tracks, however often its connections are closed and opened: one that is
// opened takes the first track that is free. So that no track moves as time goes by, all that is
// recorded is laid, and then what is not in the picture is left out.

// stay is the time for which a connection was there.
type stay struct {
	number, server uint64
	from, to       time.Time // to: zero while it is open
	out            bool
	busy           time.Duration
	track          int
}

// lay chooses the tracks: of more than fit, those with connections that are out, and then the
// busiest.
func (d *painter) lay(rods map[uint64][]rod, all bool) {
	stays := d.stays(rods)
	tracks := make([]track, pack(stays))
	for _, s := range stays {
		shows := s.out || s.busy > 0 || d.filter == "" && s.from.Before(d.To) && (s.to.IsZero() || s.to.After(d.From))
		if !shows {
			continue
		}
		l := &tracks[s.track]
		l.Connection, l.Server, l.Out = s.number, s.server, l.Out || s.out
		l.stays = append(l.stays, s)
	}
	tracks = slices.DeleteFunc(tracks, func(l track) bool { return len(l.stays) == 0 })
	most := mostTracks
	if all {
		most = allTracks
	}
	d.Hidden = max(0, len(tracks)-most)
	d.Tracks = first(tracks, most)
	d.Pitch = 22
	if len(d.Tracks) > 12 {
		d.Pitch = 16
	}
	for i := range d.Tracks {
		l := &d.Tracks[i]
		l.Y = d.Top + i*d.Pitch
		l.Mid = l.Y + d.Pitch/2 + 4
		for _, s := range l.stays {
			d.at[s.number] = i
		}
	}
	d.Bottom = d.Top + max(1, len(d.Tracks))*d.Pitch
	d.Queue.Y = d.Bottom + axisHeight
	d.Height = d.Queue.Y + queueHeight + 8
	d.Lower = d.Queue.Y + queueHeight - d.Top
}

// first are the tracks that are shown, in their order.
func first(tracks []track, most int) []track {
	if len(tracks) <= most {
		return tracks
	}
	order := make([]int, len(tracks))
	busy := make([]time.Duration, len(tracks))
	for i := range tracks {
		order[i] = i
		for _, s := range tracks[i].stays {
			busy[i] += s.busy
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		if tracks[a].Out != tracks[b].Out {
			if tracks[a].Out {
				return -1
			}
			return 1
		}
		return cmp.Compare(busy[b], busy[a])
	})
	order = order[:most]
	slices.Sort(order)
	shown := make([]track, 0, most)
	for _, i := range order {
		shown = append(shown, tracks[i])
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

// pack gives each connection the first track that is free, and tells how many tracks there are.
func pack(stays []*stay) int {
	var free []time.Time // when each track is; zero: not yet
	for _, s := range stays {
		s.track = slices.IndexFunc(free, func(at time.Time) bool { return !at.IsZero() && !at.After(s.from) })
		if s.track < 0 {
			s.track = len(free)
			free = append(free, time.Time{})
		}
		free[s.track] = s.to
	}
	return len(free)
}

// Stays are the connections of a track, each with the millisecond from which on it was there.
func (l track) Stays() string {
	var b strings.Builder
	for _, s := range l.stays {
		fmt.Fprintf(&b, "%d:%d ", s.number, s.from.UnixMilli())
	}
	return b.String()
}
