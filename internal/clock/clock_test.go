package clock

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
)

func TestAnInstantIsATimeOfDay(t *testing.T) {
	before, i, after := time.Now(), Now(), time.Now()
	at := i.Time()
	const tolerance = 10 * time.Millisecond // of the time of day, which may have been set a little
	assert.WithinRange(t, at.Round(0), before.Round(0).Add(-tolerance), after.Round(0).Add(tolerance))
	assert.WithinRange(t, at, before, after)
	assert.Equal(t, at, i.Time(), "it has one")
	assert.Equal(t, at.Add(time.Second), i.Add(time.Second).Time())
	assert.True(t, Instant(0).Time().IsZero())
}

func TestTheTimeOfDayMayBeSet(t *testing.T) {
	i := Now()
	last := time.Now()
	(*struct { // the layout of time.Time
		wall uint64
		mono int64
	})(unsafe.Pointer(&last)).mono -= int64(time.Hour)
	if time.Since(last) < time.Hour {
		t.Fatal("time.Time has another layout: this test must be written anew")
	}
	lastBoth.Store(&last) // an hour has passed since then, of which the time of day knows nothing
	assert.WithinDuration(t, time.Now().Round(0), i.Time().Round(0), time.Minute)
}

func TestInstantsInABubble(t *testing.T) {
	outside := Now()
	synctest.Test(t, func(t *testing.T) {
		i := Now()
		assert.Positive(t, i)
		assert.Equal(t, time.Now(), i.Time())
		<-time.After(time.Hour)
		assert.Equal(t, time.Hour, Now().Sub(i))
		assert.Equal(t, -time.Hour, i.Until())
		assert.Equal(t, time.Now(), i.Add(time.Hour).Time())
	})
	assert.GreaterOrEqual(t, Now(), outside)
}

func TestTheLastInstantIsNotPassed(t *testing.T) {
	last := Instant(math.MaxInt64)
	assert.Equal(t, last, Now().Add(math.MaxInt64))
	assert.Equal(t, last, last.Add(1))
	assert.Equal(t, last-1, last.Add(-1))
}
