//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

package callstack

import (
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recognising fails a test where stacks are not recognised. It makes room for
// the ones of the test.
func recognising(t testing.TB) {
	t.Helper()
	findFrames()
	require.NotNil(t, landmarks.Load(), "this release of Go has stacks as they are expected")
	forgetStacks()
}

func TestEachKindOfCallIsRecognised(t *testing.T) {
	recognising(t)
	for kind := range len(treeCalls) - treePanics {
		forgetStacks()
		var misses [3]int
		for run := range misses {
			_, differs := treeRun([]byte{byte(kind), 0, byte(kind)})
			require.Empty(t, differs, "kind %d", kind)
			misses[run] = stackMisses()
		}
		assert.Positive(t, misses[0], "kind %d: the walk leads to the goroutine's entry", kind)
		assert.Equal(t, misses[0], misses[2], "kind %d: it is recognised", kind)
	}
}

func TestAStackWithAPanicIsNotRecognised(t *testing.T) {
	recognising(t)
	for kind := len(treeCalls) - treePanics; kind < len(treeCalls); kind++ {
		_, differs := treeRun([]byte{byte(kind)})
		require.Empty(t, differs, "kind %d", kind)
		assert.Zero(t, stacksWalked(), "kind %d", kind)
	}
}

// stacksWalked is how many stacks are known by their frame pointers.
func stacksWalked() (n int) {
	for i := range knownStacks {
		for j := range knownStacks[i].stacks {
			if known := knownStacks[i].stacks[j].Load(); known != nil && known.of.depth%2 == 0 {
				n++
			}
		}
	}
	return n
}

// A frame pointer of zero ends the walk wherever it is, as in a call from C.
func TestAWalkThatEndsElsewhereIsNotRecognised(t *testing.T) {
	recognising(t)
	to := landmarks.Load()
	walked := walkFrames(to.panics, to.entry)
	assert.Positive(t, walked.frames)
	assert.Positive(t, walked.depth)
	assert.Equal(t, fingerprint{}, walkFrames(to.panics, to.entry+1))
	assert.Equal(t, fingerprint{}, walkFrames(to.entry, to.entry))
}

// Goroutines are preempted, their stacks grow, shrink and move, and there are
// more stacks than places for them.
func TestStacksAreRecognisedUnderPressure(t *testing.T) {
	recognising(t)
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	const goroutines, programs, runs = 8, 64, 40
	stop := make(chan struct{})
	var all, collector sync.WaitGroup
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				runtime.GC()
			}
		}
	})
	for g := range goroutines {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 3))
			for range programs {
				program := treeProgram(random, 12, g%2 == 0)
				for range runs {
					if _, differs := treeRun(program); differs != "" {
						t.Errorf("program %v: %s", program, differs)
						return
					}
				}
			}
		})
	}
	all.Wait()
	close(stop)
	collector.Wait()
}

// What is skipped is a number of calls, inlined or not.
func TestARecognisedStackIsSkippedInto(t *testing.T) {
	recognising(t)
	for range 3 {
		for skip := range 5 {
			var want [Depth]uintptr
			got, n := stackTooLarge(skip), runtime.Callers(1, want[:])
			frames, expected := treeFrames(got), treeFrames(want[:n])
			assert.Equal(t, max(len(expected)+3-skip, 0), len(frames))
			assert.Equal(t, expected[max(skip-3, 0):], frames[max(3-skip, 0):])
		}
	}
}

func TestADeepStackIsRecognisedByItsInnermostFrames(t *testing.T) {
	recognising(t)
	misses := 0
	for calls := range 4 * deepestWalk {
		first, second := stackDeep(calls), stackDeep(calls)
		functions := func(s Stack) (all []string) {
			for _, f := range s.Frames() {
				all = append(all, f.Function)
			}
			return all
		}
		require.Equal(t, functions(first), functions(second), calls)
		if calls < deepestWalk-10 {
			require.Greater(t, stackMisses(), misses, "another depth is another stack: %d", calls)
		}
		if calls > deepestWalk {
			require.Equal(t, misses, stackMisses(), "what is further out is not looked at: %d", calls)
			require.Len(t, second, Depth)
		}
		misses = stackMisses()
	}
}
