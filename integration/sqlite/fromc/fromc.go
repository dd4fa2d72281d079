// Package fromc calls Go from C, with anything in the register that has the frame
// pointer. It is for a test of stacks, and not in that test since tests cannot
// use cgo.
package fromc

// #include <stdint.h>
// #cgo LDFLAGS: -pthread
// void fromc_call(uintptr_t fp);
// void fromc_thread(uintptr_t fp);
import "C"

var called func()

// Call has C call f, with that in the register.
func Call(fp uintptr, f func()) {
	called = f
	C.fromc_call(C.uintptr_t(fp))
}

// Thread does so on a thread of C's own.
func Thread(fp uintptr, f func()) {
	called = f
	C.fromc_thread(C.uintptr_t(fp))
}

//export fromcCalled
func fromcCalled() { called() }
