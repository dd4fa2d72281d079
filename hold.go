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

// WithHoldLimit returns a context with which an acquire's lease may be idle in
// hand for d before it is reported, in place of [Config.LeakThreshold]: longer
// for work that is known to take long, shorter for what must be quick. Zero or
// negative: such a lease is never reported for the time it is held, nor is a
// long call on it; what the garbage collector proves is, all the same. Minimum:
// 1ms. Where the threshold of the connector is negative, it changes nothing.
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
