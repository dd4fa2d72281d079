package sqllease

import (
	"sync/atomic"
	"time"
)

// Every call on a connection reads the clock several times, which is a good part
// of what this library costs. time.Now asks the machine twice, for the time of day
// and for the time that only goes forward; here the former follows from the latter,
// and from what both were less than a second ago.

// clockBase is a time in the near past, as time.Now told it; nil: none yet.
var clockBase atomic.Pointer[time.Time]

// clockFor is how long the time of day follows from one reading of it. So that is
// how late a change of it is noticed.
const clockFor = time.Second

// clock is time.Now, for two thirds of what that costs.
func clock() time.Time {
	if base := clockBase.Load(); base != nil {
		// Negative, and far from it: testing/synctest has times of its own.
		if since := time.Since(*base); since >= 0 && since < clockFor {
			return base.Add(since)
		}
	}
	now := time.Now()
	clockBase.Store(&now)
	return now
}
