//go:build !gc || !(amd64 || arm64) || sqllease_no_assembly

package callstack

// goroutineWord has nothing to read.
func goroutineWord(uintptr) uint64 { return 0 }
