//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

package callstack

// goroutineWord reads a word of the runtime's record of the calling goroutine.
//
//go:noescape
func goroutineWord(offset uintptr) uint64
