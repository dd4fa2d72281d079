package callstack

import (
	"bytes"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
)

// The runtime knows the number of a goroutine, which it prints in every
// traceback, and has no other way to ask for it: 4 µs, where the goroutine's
// own record has it for 2 ns. Where in that record it stands is found out once
// per process, by comparing. Where that does not succeed, or the machine is
// another than amd64 and arm64, or the build tag sqllease_no_assembly is set, it is not
// known: then nested acquires are found by their traces alone, and deadlocks are not.

// goroutineOffset is where the number stands in the record; 0: not known.
var goroutineOffset atomic.Uintptr

// Goroutine is the number of the calling goroutine, which no other has or will
// have; 0: not known.
func Goroutine() uint64 {
	if offset := goroutineOffset.Load(); offset != 0 {
		return goroutineWord(offset)
	}
	return 0
}

// GoroutineAnywhere is Goroutine for what cannot do without: 4 µs where it is not known.
func GoroutineAnywhere() uint64 {
	if id := Goroutine(); id != 0 {
		return id
	}
	return printedGoroutine()
}

// findGoroutines finds out where goroutines have their number.
var findGoroutines = sync.OnceFunc(func() {
	const samples = 4 // a word may have the right value by chance, but not thrice
	var candidates []uintptr
	for i := range samples {
		found := make(chan []uintptr)
		go func() { found <- goroutineOffsets(candidates) }()
		if candidates = <-found; i == 0 && len(candidates) == 0 {
			return
		}
	}
	if len(candidates) == 1 {
		goroutineOffset.Store(candidates[0])
	}
})

// goroutineOffsets returns where the record of the calling goroutine has its
// number, among those places; nil: anywhere.
func goroutineOffsets(among []uintptr) (found []uintptr) {
	number := printedGoroutine()
	if among == nil {
		const record = 256 // bytes to look at; the record is larger
		for offset := uintptr(8); offset < record; offset += 8 {
			among = append(among, offset)
		}
	}
	for _, offset := range among {
		if goroutineWord(offset) == number {
			found = append(found, offset)
		}
	}
	return found
}

// printedGoroutine reads the number in the first line of a traceback, which is
// "goroutine 42 [running]:".
func printedGoroutine() uint64 {
	var line [64]byte
	fields := bytes.Fields(line[:runtime.Stack(line[:], false)])
	if len(fields) < 2 {
		return 0
	}
	number, _ := strconv.ParseUint(string(fields[1]), 10, 64)
	return number
}
