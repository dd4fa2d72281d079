package fidelity_test

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/fidelity"
)

func TestChurnGoesOn(t *testing.T) {
	for _, c := range []fidelity.Churn{
		{Callers: 8, Limit: 1, Rounds: 150},
		{Callers: 8, Limit: 2, Rounds: 300},
		{Callers: 64, Limit: 10, Rounds: 40},
	} {
		t.Run(c.String(), func(t *testing.T) { c.Run(t, wrapped) })
	}
}

func TestBareChurnGoesOn(t *testing.T) {
	fidelity.Churn{Callers: 8, Limit: 2, Rounds: 300}.Run(t, fidelity.Bare)
}

// TestLongChurn runs for as long as SQLLEASE_CHURN says, such as 10m: in turn, and each.
func TestLongChurn(t *testing.T) {
	text := os.Getenv("SQLLEASE_CHURN")
	if text == "" {
		return // it is for somebody who waits for it
	}
	long, err := time.ParseDuration(text)
	require.NoError(t, err)
	for _, callers := range []int{8, 64, 512} {
		for _, limit := range []int{1, 2, 10} {
			c := fidelity.Churn{Callers: callers, Limit: limit, For: long}
			t.Run(c.String(), func(t *testing.T) { c.Run(t, wrapped) })
		}
	}
}
