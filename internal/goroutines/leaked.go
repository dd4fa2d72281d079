package goroutines

import (
	"io"
	"runtime/pprof"
)

// proveLeaks has the runtime mark the goroutines that nothing can wake any more, where it is
// able to: Go 1.27, and Go 1.26 with GOEXPERIMENT=goroutineleakprofile. It costs a run of the
// garbage collector. The profile itself has no numbers of goroutines, but the marks are in what
// is printed afterwards.
func proveLeaks() {
	if p := pprof.Lookup("goroutineleak"); p != nil {
		_ = p.WriteTo(io.Discard, 0) // if it fails, nothing is marked
	}
}
