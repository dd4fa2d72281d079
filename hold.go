package sqllease

import (
	"context"
	"sync/atomic"
	"time"
)

// holdLimitKey is the key of WithHoldLimit's value in a context.
type holdLimitKey struct{}

// holdLimitsInUse spares the acquires of a process that never calls
// WithHoldLimit the search through their context.
var holdLimitsInUse atomic.Bool

// WithHoldLimit returns a context that replaces [Config.LeakThreshold] for the
// connections that are taken with it: such a connection may be checked out but unused for
// d before it is reported. Give work that pauses for long a longer limit, and what must be
// quick a shorter one. Minimum: 1ms. Zero or negative: the connection is never reported
// for being unused or for a slow call, and [Config.ReclaimAfter] leaves it alone; rows that
// nobody can close are still reported. If Config.LeakThreshold is negative, it changes
// nothing.
func WithHoldLimit(ctx context.Context, d time.Duration) context.Context {
	holdLimitsInUse.Store(true)
	if d > 0 {
		d = max(d, time.Millisecond)
	}
	return context.WithValue(ctx, holdLimitKey{}, max(d, 0))
}

// holdLimit is the limit of a lease that is acquired with ctx.
func holdLimit(ctx context.Context, usual time.Duration) time.Duration {
	if !holdLimitsInUse.Load() {
		return usual
	}
	if d, ok := ctx.Value(holdLimitKey{}).(time.Duration); ok {
		return d
	}
	return usual
}
