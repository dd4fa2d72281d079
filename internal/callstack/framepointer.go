package callstack

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// runtime.Callers unwinds a stack by tables, which is most of what a lease would
// cost. A lease is mostly taken where one was taken before. So a stack is
// recognised by the return addresses in it, which frame pointers lead to in a tenth
// of the time, and what runtime.Callers said of it the first time is said again.
// What frame pointers do not show (inlined calls, wrappers that the runtime leaves
// out) follows from the return addresses and the runtime's tables, so that whoever
// reads a stack sees no difference.
//
// The build tag sqllease_no_assembly switches this off. It is off as well on
// machines other than amd64 and arm64, and where findFrames finds something
// other than expected; runtime.Callers is asked every time then.
//
// The walk, walkFrames, is safe whatever the frame pointers are:
//
//   - It reads two words of the runtime's record of the goroutine, where its
//     stack begins and ends, and beyond that only the stack: each record (the
//     frame pointer of the caller and the return address) is aligned, not below
//     the stack pointer (on arm64, not below the word under it), above the
//     record before it, and does not reach beyond the end of the stack. So the
//     walk cannot fault, and it ends. The stack pointer itself must lie within that
//     stack, or nothing is read.
//   - The stack neither moves nor goes meanwhile. Only its own goroutine grows
//     it, in the prologue of a function; walkFrames has none (NOSPLIT) and calls
//     nothing. Others shrink it, or scan it, only when the goroutine has stopped
//     at a safe point. Assembly has none: a signal that asks for preemption finds
//     a function marked as assembly and returns. The handler runs on a stack
//     of its own, so that even the word which arm64 keeps below the stack
//     pointer stays as it was.
//   - On a stack of the runtime's own (g0, where systemstack runs) the same
//     bounds hold for that stack; no code of this package runs there.
//   - Whatever is not a chain of records up to the entry of the goroutine,
//     whose frame pointer is zero and whose return address is known, or as long a
//     one as is looked at, is not recognised, and runtime.Callers is asked: in a call from C the chain leads
//     to C's stack, which is outside of the goroutine's, or to whatever C used
//     the register for; so may assembly.
//
// Two stacks count as one if they are equally deep, and all their return
// addresses are the same, or, of deep ones, the innermost. That is wrong where the chain misses a frame. It misses
// the caller of a function without a frame, of which there are two kinds that
// have anything above them. One was interrupted by a fault, and what is above it is
// a panic: a stack with one is never recognised. The other is assembly that calls Go
// and leaves the frame pointer as it finds it, or has the place of another record
// in its register: called from two places of one function, it seems to be called
// from one of them.

// mixA and mixB make a fingerprint of return addresses. Both are odd.
const (
	mixA = 0x1e3779b97f4a7c15
	mixB = 0x6c62272e07bb0143
)

// deepestWalk is how many return addresses a stack is recognised by, the innermost ones:
// enough for the few that runtime.Callers is asked for, wrappers that it leaves out
// included.
const deepestWalk = 128

// fingerprint tells stacks apart by their return addresses. 128 bits of it
// depend on each of them: that two stacks share it by chance need not be feared.
type fingerprint struct {
	a, b   uint64
	depth  uintptr // in bytes, to the end of the stack, or of the walk
	frames int     // how many return addresses; 0: not known
}

// with is the fingerprint with one more return address.
func (f fingerprint) with(pc uintptr) fingerprint {
	return fingerprint{(f.a ^ uint64(pc)) * mixA, (f.b + uint64(pc)) * mixB, f.depth, f.frames + 1}
}

// fingerprintOf is the fingerprint of a stack that was not walked. It is none that a
// walk has, whose depth is even.
func fingerprintOf(pcs []uintptr) fingerprint {
	f := fingerprint{depth: 1}
	for _, pc := range pcs {
		f = f.with(pc)
	}
	return f
}

// Known is a stack as runtime.Callers tells it. It never changes, so that all who
// were called from one place share it.
type Known struct {
	of   fingerprint
	skip int
	pcs  Stack
	kept bool          // it will be recognised
	told atomic.Uint32 // see Told
}

// Stack is the stack; nil has none.
func (k *Known) Stack() Stack {
	if k == nil {
		return nil
	}
	return k.pcs
}

// Recognised tells whether it is the same again when it is captured again.
func (k *Known) Recognised() bool { return k.kept }

// knownSet is a few stacks of similar fingerprints.
type knownSet struct {
	stacks [8]atomic.Pointer[Known]
	misses atomic.Uint32
}

// knownSets is how many sets there are, as a power of two.
const knownSets = 12

// knownStacks are those that are recognised: at most 32,768, in 10 MB.
var knownStacks [1 << knownSets]knownSet

// recall is what is known of a stack; nil: nothing.
func (f fingerprint) recall(skip int) *Known {
	if f.frames == 0 {
		return nil
	}
	set := f.set()
	for i := range set.stacks {
		if known := set.stacks[i].Load(); known != nil && known.of == f && known.skip == skip {
			return known
		}
	}
	return nil
}

// remember notes what runtime.Callers said. Where there is no room, few stacks are let
// in.
func (f fingerprint) remember(skip int, pcs []uintptr) *Known {
	const oneIn = 64
	k := &Known{of: f, skip: skip, pcs: append(Stack(nil), pcs...)}
	if f.frames == 0 {
		return k
	}
	set := f.set()
	misses := set.misses.Add(1)
	place := &set.stacks[misses/oneIn%uint32(len(set.stacks))]
	for i := range set.stacks {
		if set.stacks[i].Load() == nil {
			misses, place = 0, &set.stacks[i]
			break
		}
	}
	if misses%oneIn == 0 {
		k.kept = true
		place.Store(k)
	}
	return k
}

// set is where a stack is if it is known.
func (f fingerprint) set() *knownSet {
	return &knownStacks[f.a>>(64-knownSets)] // the uppermost bits depend on all of the return addresses
}

// returns are addresses in the runtime to which functions return: one that was
// deferred, and runs because of a panic, and that which a goroutine began with.
type returns struct{ panics, entry uintptr }

// landmarks are those addresses; nil: stacks are not recognised.
var landmarks atomic.Pointer[returns]

// Find finds out what recognising stacks and telling goroutines apart depends on, once per
// process. Until then neither is done.
func Find() {
	findGoroutines()
	findFrames()
}

// findFrames finds them out, and whether stacks are as walkFrames takes them to be.
var findFrames = sync.OnceFunc(func() {
	found := make(chan *returns)
	go func() { found <- lookAtFrames() }()
	landmarks.Store(<-found)
})

// lookAtFrames does that, on a goroutine which has just begun; nil: something
// is other than expected.
func lookAtFrames() (to *returns) {
	if !boundsHold() {
		return nil
	}
	defer func() {
		_ = recover()
		to = walkHolds()
	}()
	panic("sqllease looks at a panic of its own")
}

// boundsHold tells whether the runtime's record of a goroutine has the bounds of
// its stack where walkFrames looks for them: the caller is between them, near the
// upper one since the goroutine has just begun, and as near to it after the stack
// was moved.
//
//go:noinline
func boundsHold() bool {
	const near, more = 2 << 10, 16
	lo, hi, sp := stackBounds()
	if sp <= lo || sp >= hi || hi-sp > near {
		return false
	}
	outgrow(more)
	movedLo, movedHi, movedSP := stackBounds()
	return movedLo < movedSP && movedSP < movedHi && movedHi-movedSP == hi-sp
}

// outgrow calls itself until a stack of the usual size was too small.
//
//go:noinline
func outgrow(calls int) byte {
	var room [4 << 10]byte
	if calls > 0 {
		room[calls] = outgrow(calls - 1)
	}
	return room[calls/2]
}

// walkHolds compares the walk with runtime.Callers, where nothing is inlined. Its
// caller is called because of a panic.
//
//go:noinline
func walkHolds() *returns {
	var buf [Depth]uintptr
	pcs := buf[:runtime.Callers(2, buf[:])]
	if len(pcs) < 3 || runtime.FuncForPC(pcs[1]-1).Name() != "runtime.gopanic" {
		return nil
	}
	to := &returns{panics: pcs[1], entry: pcs[len(pcs)-1]}
	walked := walkFrames(0, to.entry)
	expected := fingerprint{depth: walked.depth}
	for _, pc := range pcs {
		expected = expected.with(pc)
	}
	if walked != expected || walkFrames(to.panics, to.entry).frames != 0 {
		return nil
	}
	return to
}
