// Package clock reads the clock that only goes forward, cheaply, and works out times
// of day only where people are told of them. It knows nothing of what is timed.
package clock

import (
	"math"
	"sync/atomic"
	"time"
)

// Every call on a connection reads the clock several times, which is a good part
// of what this library costs. So it reads the one that only goes forward, and no
// time of day; that is worked out where people are told of it.

// Instant is a time, in nanoseconds from a century before epoch; zero: none.
type Instant int64

// century makes all instants positive, those in the year 2000 of testing/synctest
// included.
const century = Instant(100 * 365 * 24 * time.Hour)

var epoch = time.Now()

// Now is the present instant.
func Now() Instant { return Instant(time.Since(epoch)) + century }

// Add is the instant that is so much later, or the last there is.
func (i Instant) Add(d time.Duration) Instant {
	if later := i + Instant(d); d <= 0 || later > i {
		return later
	}
	return math.MaxInt64
}

// Sub is how much later it is than another.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Until is for how long it is still to come.
func (i Instant) Until() time.Duration { return i.Sub(Now()) }

// IsZero tells whether it is none.
func (i Instant) IsZero() bool { return i == 0 }

// Time is its time of day; zero for none.
func (i Instant) Time() time.Time {
	return i.On(Clocks())
}

// On is that, by a reading of both clocks; zero for none.
func (i Instant) On(base time.Time) time.Time {
	if i.IsZero() {
		return time.Time{}
	}
	return base.Add(i.Sub(century) - base.Sub(epoch))
}

// lastBoth is a reading of both clocks, from which times of day are worked out: from
// one, so that an instant has the same at all times.
var lastBoth atomic.Pointer[time.Time]

// Clocks is that reading, or, once the time of day was set, a new one.
func Clocks() time.Time {
	now := time.Now()
	if now == now.Round(0) { //nolint:staticcheck // not whether they are Equal, but whether one of the clocks is missing
		return now // there is one clock only, in testing/synctest
	}
	last := lastBoth.Load()
	if agree(last, now) {
		return *last
	}
	if now = readBoth(); agree(last, now) {
		return *last // it was not set: this thread was stopped between the two clocks
	}
	kept := now // so that it is allocated only here
	lastBoth.Store(&kept)
	return now
}

// agree tells whether the time of day was not set between two readings.
func agree(last *time.Time, now time.Time) bool {
	const tolerance = 100 * time.Microsecond
	return last != nil && (now.Round(0).Sub(last.Round(0))-now.Sub(*last)).Abs() < tolerance
}

// readBoth reads both clocks so fast that they tell of the same moment, if it can.
func readBoth() (now time.Time) {
	const fast, tries = 10 * time.Microsecond, 100
	for range tries {
		before := Now()
		now = time.Now()
		if Now().Sub(before) < fast {
			break
		}
	}
	return now
}
