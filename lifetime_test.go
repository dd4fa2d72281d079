package sqllease

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
)

// How long a session may live: the pure functions.

func TestTheMarginIsATenthWithinItsBounds(t *testing.T) {
	for _, c := range []struct{ limit, want time.Duration }{
		{0, 0},
		{time.Millisecond, 500 * time.Microsecond},
		{900 * time.Millisecond, 450 * time.Millisecond}, // half: half a second would be more
		{time.Second, 500 * time.Millisecond},
		{3 * time.Second, 500 * time.Millisecond}, // a tenth would be less than half a second
		{5 * time.Second, 500 * time.Millisecond},
		{6 * time.Second, 600 * time.Millisecond},
		{time.Minute, 6 * time.Second},
		{5 * time.Minute, 30 * time.Second},
		{8 * time.Hour, 30 * time.Second}, // a tenth would be more than half a minute
		{math.MaxInt64, 30 * time.Second},
	} {
		assert.Equal(t, c.want, margin(c.limit), "of %v", c.limit)
	}
}

func TestTheSmallerLimitTakesZeroForNone(t *testing.T) {
	for _, c := range []struct{ a, b, want time.Duration }{
		{0, 0, 0}, {0, 5, 5}, {5, 0, 5}, {3, 5, 3}, {5, 3, 3}, {4, 4, 4},
	} {
		assert.Equal(t, c.want, drivers.MinLimit(c.a, c.b), "of %v and %v", c.a, c.b)
	}
}

const lifetimeBirth = clock.Instant(time.Hour)

// limited are settings with those two limits.
func limited(network, most time.Duration) *settings {
	return &settings{Config: Config{NetworkIdleLimit: network, MaxLifetime: most}}
}

func TestALifetimeIsChosenFromTheLimits(t *testing.T) {
	for name, c := range map[string]struct {
		found                drivers.Limits
		network, most        time.Duration
		limit, idle, longest time.Duration
	}{
		"nothing known":         {},
		"the server's":          {found: drivers.Limits{Idle: time.Minute}, limit: time.Minute, idle: 54 * time.Second, longest: 54 * time.Second},
		"the network's":         {network: 10 * time.Second, limit: 10 * time.Second, idle: 9 * time.Second},
		"the network is less":   {drivers.Limits{Idle: time.Hour}, 10 * time.Second, 0, 10 * time.Second, 9 * time.Second, time.Hour - 30*time.Second},
		"the server is less":    {drivers.Limits{Idle: 10 * time.Second}, time.Hour, 0, 10 * time.Second, 9 * time.Second, 9 * time.Second},
		"a maximum alone":       {most: time.Hour, longest: time.Hour},
		"a maximum that counts": {drivers.Limits{Idle: time.Hour}, 0, time.Minute, time.Hour, time.Hour - 30*time.Second, time.Minute},
		"a maximum too far":     {drivers.Limits{Idle: time.Minute}, 0, time.Hour, time.Minute, 54 * time.Second, 54 * time.Second},
		"a transaction's idle limit bounds no session": {found: drivers.Limits{IdleTx: time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			got := newLifetime(lifetimeBirth, c.found, limited(c.network, c.most))
			want := lifetime{born: lifetimeBirth, limits: drivers.Limits{Idle: c.limit, IdleTx: c.found.IdleTx}, idle: c.idle, whole: c.longest}
			want.byIdle = c.found.Idle > 0 && want.whole == c.found.Idle-margin(c.found.Idle)
			assert.Equal(t, want, got)

			only := limited(c.network, c.most)
			only.IdleOnly = true
			got = newLifetime(lifetimeBirth, c.found, only)
			want.whole, want.byIdle = c.most, false
			assert.Equal(t, want, got, "idle only")
		})
	}
}

func TestAChanceIsAFraction(t *testing.T) {
	seen := map[float64]bool{}
	for range 1000 {
		c := (&lifetime{whole: time.Hour}).bounds(0.1).Chance
		require.GreaterOrEqual(t, c, 0.0)
		require.Less(t, c, 1.0)
		seen[c] = true
	}
	assert.Greater(t, len(seen), 900, "sessions that were born together do not end together")
}

func TestExpiryIsTheEarlierOfAgeAndIdleTime(t *testing.T) {
	after := func(d time.Duration) clock.Instant { return lifetimeBirth.Add(d) }
	for name, c := range map[string]struct {
		life lifetime
		used clock.Instant
		want clock.Instant
	}{
		"never":                 {lifetime{born: lifetimeBirth}, after(time.Hour), 0},
		"by age":                {lifetime{born: lifetimeBirth, whole: time.Minute}, after(50 * time.Second), after(time.Minute)},
		"by idle time":          {lifetime{born: lifetimeBirth, idle: time.Minute}, after(time.Hour), after(time.Hour + time.Minute)},
		"by age, idle is later": {lifetime{born: lifetimeBirth, whole: time.Minute, idle: time.Minute}, after(time.Second), after(time.Minute)},
		"by idle time, age is later": {
			lifetime{born: lifetimeBirth, whole: time.Hour, idle: time.Minute}, after(time.Second), after(61 * time.Second),
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, c.life.bounds(0).Expiry(c.used))
			if c.want.IsZero() {
				assert.False(t, c.life.bounds(0).Expired(c.used, after(100*365*24*time.Hour)))
				return
			}
			assert.False(t, c.life.bounds(0).Expired(c.used, c.want.Add(-1)))
			assert.True(t, c.life.bounds(0).Expired(c.used, c.want), "at its expiry a session is not handed out any more")
			assert.True(t, c.life.bounds(0).Expired(c.used, c.want.Add(time.Hour)))
		})
	}
}
