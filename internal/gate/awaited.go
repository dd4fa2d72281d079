package gate

// AwaitedLocked tells of each lane whether somebody waits for one of its places to become free,
// and how many places these lanes have: sessions in use, and dials for their callers. Nil: those
// who wait are waiting for any place. Its caller is called by Look.
func (g *Gate[S, C]) AwaitedLocked() (awaited []bool, places int) {
	if !g.lanes.several || g.lanes.waiting == 0 || g.nextLocked() != nil {
		return nil, 0
	}
	awaited = make([]bool, len(g.lanes.all))
	for i := range g.lanes.all {
		switch l := &g.lanes.all[i]; {
		case l.waiters.len == 0:
		case l.Max > 0 && l.used >= l.Max:
			awaited[i] = true
		default: // any place that is not reserved
			for j := range g.lanes.all {
				awaited[j] = awaited[j] || g.lanes.all[j].used > g.lanes.all[j].Reserve
			}
		}
	}
	for i, is := range awaited {
		if is {
			places += g.lanes.all[i].used
		}
	}
	return awaited, places
}

// Lane is the lane that a session is held for, or was last. Its caller holds the session, or is
// called by Look.
func (s *Session[S]) Lane() LaneID { return s.lane }

// MostLocked is how many places a lane may have at most; 0: any number. Its caller is called by
// Look.
func (g *Gate[S, C]) MostLocked(id LaneID) int {
	l, most := &g.lanes.all[id], g.limit
	if most > g.lanes.reserve {
		most -= g.lanes.reserve - l.Reserve
	}
	if l.Max > 0 && (most == 0 || l.Max < most) {
		return l.Max
	}
	return most
}
