package sqllease

import (
	"math"
	"time"
)

// Every call on a connection reads the clock several times, which is a good part
// of what this library costs. So it reads the one that only goes forward, and no
// time of day; that is worked out where people are told of it.

// instant is a time, in nanoseconds after epoch; zero: none.
type instant int64

// epoch lies so far in the past that no instant is zero or less, in the year 2000
// of testing/synctest either.
var epoch = time.Now().Add(-100 * 365 * 24 * time.Hour)

// clock is the present instant.
func clock() instant { return instant(time.Since(epoch)) }

// Add is the instant that is so much later, or the last there is.
func (i instant) Add(d time.Duration) instant {
	if later := i + instant(d); d <= 0 || later > i {
		return later
	}
	return math.MaxInt64
}

// Sub is how much later it is than another.
func (i instant) Sub(j instant) time.Duration { return time.Duration(i - j) }

// Until is for how long it is still to come.
func (i instant) Until() time.Duration { return i.Sub(clock()) }

// IsZero tells whether it is none.
func (i instant) IsZero() bool { return i == 0 }

// Time is its time of day; zero for none.
func (i instant) Time() time.Time {
	if i.IsZero() {
		return time.Time{}
	}
	now := time.Now()
	return now.Add(time.Duration(i) - now.Sub(epoch))
}
