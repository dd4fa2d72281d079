package sqllease

import (
	"bytes"
	"io"
	"log"
	"regexp"
	"runtime/pprof"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain fails the package's tests if one of them leaves a goroutine behind, but for the one
// that is to be proven. The driver says nothing of the servers that end its connections.
func TestMain(m *testing.M) {
	_ = mysql.SetLogger(log.New(io.Discard, "", 0))
	processLooks = nil // tests that are about what goroutines do now have their own
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/sqllease/sqllease.nowNeverEnds"))
}

var ofTheLibrary = regexp.MustCompile(`(?m)^(created by )?github\.com/sqllease/sqllease\.\(\*(Connector|handle|gate|tracing)\)`)

// ownGoroutines counts the goroutines that the library has started, or that are in it.
func ownGoroutines(t *testing.T) (n int) {
	t.Helper()
	var all bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&all, 2))
	for _, stack := range bytes.Split(all.Bytes(), []byte("\n\n")) {
		if ofTheLibrary.Match(stack) {
			n++
		}
	}
	return n
}
