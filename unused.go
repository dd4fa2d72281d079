package sqllease

import (
	"cmp"

	"github.com/sqllease/sqllease/internal/clock"
)

// A connection that is checked out is unused from the end of a call to the beginning of the
// next, and between two rows. Calls read the clock anyway. To read it for each row would be
// felt where rows come fast, so it is read as often as takes a hundredth of the time of the
// query: for each row, unless the server answers within microseconds. What was between two
// rows is not known then, and counts as used. So the time that is told is never too long.

// rested notes that the lease is used again, which has come so far in reading rows.
func (l *lease) rested(step uint64, now clock.Instant) {
	var since clock.Instant
	switch step {
	case l.settled:
		since = cmp.Or(l.since, l.acquired)
	case l.stamped.Load():
		since = clock.Instant(l.readAt.Load())
	default:
		return // a row was read, at a time that nobody has noted
	}
	took := now.Sub(since)
	l.rest.all += took
	l.rest.longest = max(l.rest.longest, took)
}

// pause has it count as used until resume, between two calls: a statement is closed, for which some
// drivers ask the server, and which is no call that anybody is told of.
func (l *lease) pause() {
	if l.inCall == callNone {
		now := clock.Now()
		l.rested(l.steps(), now)
		if !l.closed {
			l.closed, l.answered = true, l.since
		}
		l.close(true, now)
	}
}

func (l *lease) resume() {
	if l.inCall == callNone {
		l.close(false, clock.Now())
	}
}

// close notes that a statement begins to be closed, or is.
func (l *lease) close(begins bool, now clock.Instant) {
	l.mu.Lock()
	l.closing = begins
	l.settleLocked(now)
	l.mu.Unlock()
}

// answeredAt is when the last call ended; zero: there was none. Whether the server was asked by a
// statement that was closed is not known. Its caller is the holder, in no call.
func (l *lease) answeredAt() clock.Instant {
	if l.closed {
		return l.answered
	}
	return l.since
}

// stampBegin notes the time at which a row begins to be read, or what is left of them.
func (l *lease) stampBegin() {
	now, step := clock.Now(), l.steps()
	l.rested(step-1, now)
	l.stampAt(step, now)
}
