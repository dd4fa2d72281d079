//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

package callstack

// walkFrames follows the frame pointers of the calling goroutine from the
// caller to the goroutine's entry, of which that is the return address. The
// fingerprint is zero if they do not lead there, or by way of panics.
func walkFrames(panics, entry uintptr) (f fingerprint)

// stackBounds returns where the stack of the calling goroutine begins and ends,
// and where in it the caller is.
func stackBounds() (lo, hi, sp uintptr)
