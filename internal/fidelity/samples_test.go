package fidelity_test

import (
	"testing"
	"time"

	"github.com/sqllease/sqllease/internal/fidelity"
)

func TestSessionsOverTime(t *testing.T) {
	for _, s := range []fidelity.IdleSettings{
		{Limit: 5, Idle: 2},
		{Limit: 5, Idle: 0},
		{Limit: 5, Idle: 5},
		{Limit: 5, Idle: 2, IdleTime: time.Second},
		{Limit: 5, Idle: 3, IdleTime: 10 * time.Second},
		{Limit: 1, Idle: 1, IdleTime: time.Second},
	} {
		t.Run(s.String(), func(t *testing.T) {
			fidelity.Samples(t, wrapped, s)
		})
	}
}
