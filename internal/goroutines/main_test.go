package goroutines

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package's tests if one of them leaves a goroutine behind, but for the one
// that is to be proven.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/sqllease/sqllease/internal/goroutines.neverEnds"))
}
