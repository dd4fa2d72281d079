package sqllease

import (
	"context"
	"time"
)

// longDial is how long a dial lasts that says something of the server although its caller
// ended it. A dial takes a few round trips, and some work for TLS and the login: across the
// world, less than half of this.
const longDial = time.Second

// blames tells whether a dial that failed so says that the server, or the way to it, is not
// well: then few dial at a time (gate.Failed). These do:
//
//   - The server refused, or nobody answered within the driver's own time for a dial: the
//     caller had nothing to do with it.
//   - The caller's time, or Config.AcquireTimeout, ran out, after longDial.
//
// These do not:
//
//   - The caller's time ran out before. It may have queued for nearly all of its time, or have
//     a few milliseconds as a matter of course. A pool of such callers whose server is well
//     must not be slowed down by them.
//   - The caller went away, after however long: clients hang up, and where many calls are made
//     at once, the first that fails cancels the others. The next who dials will see.
func blames(ctx context.Context, err error, took time.Duration) bool {
	ended := ctx.Err()
	if ended == nil && !endsNow(ctx, err) {
		return true
	}
	cancelled := ended == context.Canceled && context.Cause(ctx) != errOutOfTime
	return !cancelled && took >= longDial
}
