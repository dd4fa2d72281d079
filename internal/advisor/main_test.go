package advisor

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails the package's tests if one of them leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
