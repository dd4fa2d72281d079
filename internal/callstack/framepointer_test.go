package callstack

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What a stack says is what runtime.Callers says of it, recognised or not. So
// these tests compare all of it, and allow for no difference.

// tree is a walk through calls of all kinds. At its end it captures its stack.
type tree struct {
	program []byte // which calls are made
	looked  int
	differs string // what was not the same as with runtime.Callers
}

// next makes the next call.
func (w *tree) next() {
	if len(w.program) == 0 {
		w.look()
		return
	}
	call := treeCalls[int(w.program[0])%len(treeCalls)]
	w.program = w.program[1:]
	call(w)
}

// look captures the stack in both ways, in one line.
func (w *tree) look() {
	var b [Depth]uintptr
	a, m := Capture(0).Stack(), runtime.Callers(1, b[:])
	n := len(a)
	w.looked++
	if n != m || !slices.Equal(a[1:n], b[1:m]) || !slices.Equal(treeFrames(a[:n]), treeFrames(b[:m])) {
		w.differs = fmt.Sprintf("%s\ninstead of\n%s", treeFrames(a[:n]), treeFrames(b[:m]))
	}
}

// treeFrames are the frames of a stack, to be compared.
func treeFrames(s Stack) (out []string) {
	for _, f := range s.Frames() {
		out = append(out, fmt.Sprintf("%s %s:%d\n", f.Function, f.File, f.Line))
	}
	return out
}

// treeCalls are the kinds of calls; the last treePanics of them panic, and a
// stack with a panic is not recognised.
var treeCalls []func(*tree)

const treePanics = 4

func init() {
	treeCalls = []func(*tree){
		treeInlined, treeTwice, treeGeneric[int], treeGeneric[string], (*tree).next, treeNotInlined, treeLarge, treeRecursive,
		func(w *tree) { func() { w.next() }() },
		func(w *tree) { call := w.next; treeCall(call) },
		func(w *tree) { treeCall(treeAny[any]{}.bind(w)) },
		func(w *tree) { treeInterface(treeEmbeds{treeEmbedded{w}}) },
		func(w *tree) { treeInterface(&treeEmbeds{treeEmbedded{w}}) },
		func(w *tree) { treeInterface(treeAny[int]{w: w}) },
		func(w *tree) { treeInterface(&treeAny[*tree]{w: w}) },
		func(w *tree) { treeInterface(struct{ treeStepper }{treeAny[string]{w: w}}) },
		func(w *tree) { call := treeStepper.step; call(treeEmbedded{w}) },
		func(w *tree) { defer w.next() },
		func(w *tree) { defer treeInlined(w) },
		func(w *tree) {
			for range 2 { // the second starts at the end, of which there is another stack
				defer func(w *tree) { w.next() }(w)
			}
		},
		func(w *tree) { reflect.ValueOf(treeInlined).Call([]reflect.Value{reflect.ValueOf(w)}) },
		func(w *tree) { reflect.ValueOf(treeEmbeds{treeEmbedded{w}}).MethodByName("Step").Call(nil) },
		func(w *tree) { reflect.ValueOf(w.next).Interface().(func())() },
		func(w *tree) {
			made := reflect.MakeFunc(reflect.TypeFor[func()](), func([]reflect.Value) []reflect.Value { w.next(); return nil })
			made.Interface().(func())()
		},
		func(w *tree) {
			for range treeSeq {
				w.next()
			}
		},
		func(w *tree) {
			next, stop := iter.Pull(func(yield func(int) bool) { w.next(); yield(0) })
			defer stop()
			next()
		},
		func(w *tree) { new(sync.Once).Do(w.next) },
		func(w *tree) {
			slices.SortFunc([]int{1, 2}, func(int, int) int { w.next(); w.program = nil; return 0 })
		},
		func(w *tree) { treeWait(func(done func()) { go treeDone(w, done) }) },
		func(w *tree) { treeWait(func(done func()) { go func() { defer done(); w.next() }() }) },
		func(w *tree) {
			treeWait(func(done func()) {
				go func() { defer done(); defer w.next(); runtime.Goexit() }()
			})
		},
		func(w *tree) { // after a panic
			func() {
				defer func() { _ = recover() }()
				panic(w)
			}()
			w.next()
		},

		func(w *tree) {
			defer func() { w.next(); _ = recover() }()
			panic(w)
		},
		func(w *tree) {
			defer func() { w.next(); _ = recover() }()
			treeLeaf(nil)
		},
		func(w *tree) {
			defer func() { _ = recover() }()
			defer treeInlined(w)
			treeTwiceLeaf(len(w.program)%2 == 0)
		},
		func(w *tree) {
			defer func() { _ = recover() }()
			defer func() { panic(recover()) }()
			defer w.next()
			defer panic(w)
			panic(w)
		},
	}
}

type treeStepper interface{ step() }

type treeEmbedded struct{ w *tree }

func (e treeEmbedded) step() { e.w.next() }

// Step is what reflection finds.
func (e treeEmbedded) Step() { e.w.next() }

type treeEmbeds struct{ treeEmbedded }

type treeAny[T any] struct {
	w *tree
	_ [0]T
}

func (a treeAny[T]) step() { a.w.next() }

//go:noinline
func (a treeAny[T]) bind(w *tree) func() { a.w = w; return a.step }

//go:noinline
func treeInterface(s treeStepper) { s.step() }

//go:noinline
func treeCall(f func()) { f() }

func treeInlined(w *tree) { w.next() }

func treeTwice(w *tree) { treeInlined(w) }

//go:noinline
func treeNotInlined(w *tree) { treeTwice(w) }

func treeGeneric[T any](w *tree) { treeTwice(w) }

// treeLarge has a frame that makes stacks grow.
//
//go:noinline
func treeLarge(w *tree) {
	var room [8 << 10]byte
	room[len(w.program)] = 1
	w.next()
	runtime.KeepAlive(&room)
}

// treeRecursive is deeper the longer the rest of the program is.
func treeRecursive(w *tree) {
	var recurse func(int)
	recurse = func(n int) {
		if n == 0 {
			w.next()
			return
		}
		recurse(n - 1)
	}
	recurse(len(w.program) % 16)
}

func treeSeq(yield func(int) bool) { _ = yield(1) }

func treeDone(w *tree, done func()) {
	defer done()
	w.next()
}

func treeWait(start func(done func())) {
	var wait sync.WaitGroup
	wait.Add(1)
	start(wait.Done)
	wait.Wait()
}

// treeLeaf has no frame. A nil pointer makes it panic.
//
//go:noinline
func treeLeaf(p *int) int { return *p }

// treeTwiceLeaf has two places that call it.
func treeTwiceLeaf(first bool) int {
	if first {
		return treeLeaf(nil)
	}
	return treeLeaf(nil)
}

// treeRun runs a program, and returns what is wrong.
func treeRun(program []byte) (looked int, differs string) {
	w := &tree{program: program}
	w.next()
	return w.looked, w.differs
}

// treeProgram is a random program, without panics if so asked.
func treeProgram(random *rand.Rand, most int, panics bool) []byte {
	kinds := len(treeCalls)
	if !panics {
		kinds -= treePanics
	}
	program := make([]byte, random.IntN(most))
	for i := range program {
		program[i] = byte(random.IntN(kinds))
	}
	return program
}

// forgetStacks makes all stacks unknown.
func forgetStacks() {
	for i := range knownStacks {
		for j := range knownStacks[i].stacks {
			knownStacks[i].stacks[j].Store(nil)
		}
		knownStacks[i].misses.Store(0)
	}
}

// stackMisses is how many stacks could be recognised, and were not.
func stackMisses() (n int) {
	for i := range knownStacks {
		n += int(knownStacks[i].misses.Load())
	}
	return n
}

func TestAStackIsWhatTheRuntimeSaysOfIt(t *testing.T) {
	findFrames()
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		program := treeProgram(random, 24, true)
		for range 3 {
			looked, differs := treeRun(program)
			require.Positive(t, looked)
			require.Empty(t, differs, "program %v", program)
		}
	}
}

// A program with more stacks than there is room for does not allocate for each.
func TestFewStacksAreLetInWhereThereIsNoRoom(t *testing.T) {
	forgetStacks()
	defer forgetStacks()
	const oneIn, many = 64, 1000
	room := len(knownStacks[0].stacks)
	letIn := 0
	for i := range many {
		f := fingerprint{frames: i + 1}
		f.remember(0, []uintptr{1, 2, 3})
		if known := f.recall(0); known != nil {
			letIn++
			assert.Len(t, known.Stack(), 3)
			assert.Nil(t, f.recall(1), "of another skip it is another stack")
		}
	}
	assert.Equal(t, room+many/oneIn, letIn)
	assert.Nil(t, fingerprint{frames: 1}.recall(0), "the first had to go")
}

func TestACaptureAllocatesNothing(t *testing.T) {
	findFrames()
	assert.Zero(t, testing.AllocsPerRun(100, func() { Capture(0) }))
}

// BenchmarkCapture compares recognising a stack with runtime.Callers.
func BenchmarkCapture(b *testing.B) {
	findFrames()
	for _, depth := range []int{8, 16, 32, 64} {
		for name, look := range map[string]func(*[Depth]uintptr) int{
			"recognised": func(*[Depth]uintptr) int { return len(Capture(0).Stack()) },
			"callers":    func(buf *[Depth]uintptr) int { return runtime.Callers(1, buf[:]) },
		} {
			b.Run(fmt.Sprintf("depth=%d/%s", depth, name), func(b *testing.B) {
				var pcs [2 * deepestWalk]uintptr
				below := runtime.Callers(1, pcs[:]) + 1
				benchmarkAt(depth-below, func() {
					var buf [Depth]uintptr
					b.ReportAllocs()
					for b.Loop() {
						look(&buf)
					}
				})
			})
		}
	}
}

// benchmarkAt runs f that many calls deeper.
//
//go:noinline
func benchmarkAt(calls int, f func()) {
	if calls <= 1 {
		f()
		return
	}
	benchmarkAt(calls-1, f)
}
