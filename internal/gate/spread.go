package gate

import (
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// Sessions that are dialed together would end together, their successors be dialed together,
// and so on for ever. So the gate chooses when each ends.

// tenths is in how many parts of a lifetime the ends of sessions are spread.
const tenths = 10

// spreadLocked is when a session ends, of which nothing is counted yet, and beside which there
// are that many others: at its bound, less the jitter.
// But if a tenth of all sessions, rounded up, end in that same tenth of its lifetime, counted
// from now, it ends in the latest tenth in which fewer do. There is one: ten times a tenth,
// rounded up, are no fewer than all, and one of all is the new one.
//
// What has no end is not counted, nor what is over and still held, or ends after its bound.
// Every session is looked at, for some nanoseconds each, once per dial.
func (g *Gate[S, C]) spreadLocked(l Life, others int, now clock.Instant) clock.Instant {
	whole := l.End.Sub(now)
	if l.End.IsZero() || whole <= 0 {
		return l.End
	}
	tenthOf := func(end clock.Instant) int {
		return min(int(float64(end.Sub(now))/float64(whole)*tenths), tenths-1)
	}
	var ends [tenths]int
	count := func(s *Session[S]) bool {
		if end := s.life.End; end > now && end <= l.End {
			ends[tenthOf(end)]++
		}
		return true
	}
	g.held.each(count)
	g.ready.each(count)
	most := (others + 1 + tenths - 1) / tenths
	if end := l.End.Add(-time.Duration(float64(whole) * l.Jitter * l.Chance)); ends[tenthOf(end)] < most {
		return end
	}
	for i := tenths - 1; i >= 0; i-- {
		if ends[i] < most {
			return now.Add(time.Duration(float64(whole) * (float64(i) + l.Chance) / tenths))
		}
	}
	panic("sqllease: bug: more sessions end than there are")
}
