package gate

import (
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// Sessions that are dialed together would end together, their successors be dialed together,
// and so on for ever. So the gate chooses when each ends.

// tenths counts the ends of sessions in each tenth of a time: a session that is to end in one
// in which a tenth of all do, rounded up, ends in an earlier one.
type tenths struct {
	from  clock.Instant
	whole time.Duration
	ends  [10]int
	most  int // how many may end in one
}

// tenthsLocked counts them, with so many sessions to come. What has no end is not counted, nor
// what is over and still held, or ends later. Every session is looked at, for some nanoseconds
// each.
func (g *Gate[S, C]) tenthsLocked(from clock.Instant, whole time.Duration, more int) *tenths {
	t := &tenths{from: from, whole: whole}
	t.most = (g.held.len + g.ready.len + more + len(t.ends) - 1) / len(t.ends)
	count := func(s *Session[S]) bool {
		t.count(s.life.End, 1)
		return true
	}
	g.held.each(count)
	g.ready.each(count)
	return t
}

func (t *tenths) count(end clock.Instant, by int) {
	if end > t.from && end <= t.from.Add(t.whole) {
		t.ends[t.of(end)] += by
	}
}

// of is the tenth in which an end is.
func (t *tenths) of(end clock.Instant) int {
	return min(int(float64(end.Sub(t.from))/float64(t.whole)*float64(len(t.ends))), len(t.ends)-1)
}

// place is the end of a session with that life: its bound, less the jitter. If that tenth is
// full, it is in the latest that is not, up to its bound: for a session that is new, and has
// the whole time, there is one, since ten times a tenth, rounded up, are no fewer than all. If
// there is none, as where a limit was lowered, it is where it would have been.
func (t *tenths) place(l Life) clock.Instant {
	own := l.End.Sub(t.from)
	if own <= 0 {
		return l.End
	}
	end := l.End.Add(-time.Duration(float64(own) * l.Jitter * l.Chance))
	if t.ends[t.of(end)] < t.most {
		return end
	}
	for i := t.of(l.End); i >= 0; i-- {
		if t.ends[i] < t.most {
			return min(l.End, t.from.Add(time.Duration(float64(t.whole)*(float64(i)+l.Chance)/float64(len(t.ends)))))
		}
	}
	return end
}

// spreadLocked is when a session ends that was dialed just now.
func (g *Gate[S, C]) spreadLocked(l Life, now clock.Instant) clock.Instant {
	whole := l.End.Sub(now)
	if l.End.IsZero() || whole <= 0 {
		return l.End
	}
	return g.tenthsLocked(now, whole, 1).place(l)
}

// spreadAllLocked does so for sessions whose bounds were brought forward, in tenths of the
// longest time that one of them has left.
func (g *Gate[S, C]) spreadAllLocked(all []*Session[S], now clock.Instant) {
	var longest time.Duration
	for _, s := range all {
		longest = max(longest, s.life.End.Sub(now))
	}
	if longest <= 0 {
		return
	}
	t := g.tenthsLocked(now, longest, 0)
	for _, s := range all {
		t.count(s.life.End, -1)
		s.life.End = t.place(s.life)
		t.count(s.life.End, 1)
	}
}
