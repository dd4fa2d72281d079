//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

package callstack

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestTheNumberOfAGoroutineIsReadInItsRecord(t *testing.T) {
	findGoroutines()
	assert.Equal(t, printedGoroutine(), Goroutine())
	assert.Zero(t, testing.AllocsPerRun(100, func() { Goroutine() }))
}
