package livepage

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sqllease/sqllease"
)

func TestTheLimitBeforeItsFirstChangeIsNotTheOneAfter(t *testing.T) {
	changed := sqllease.RecordedEvent{Kind: sqllease.EventLimit, At: at(time.Minute), Limit: 2}
	rec := &sqllease.Recording{Limit: 2, Events: []sqllease.RecordedEvent{changed}}
	assert.Zero(t, limitAt(rec, at(0)), "not known: eight of two would be in use")
	assert.Equal(t, 2, limitAt(rec, at(time.Minute)))
	assert.Equal(t, 2, limitAt(&sqllease.Recording{Limit: 2}, at(0)), "nothing has changed")
}
