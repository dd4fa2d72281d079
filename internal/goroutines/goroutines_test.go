package goroutines

import (
	"fmt"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

// started runs f on a goroutine, and returns its number once it is in that state.
func started(t *testing.T, state string, f func()) (number uint64) {
	t.Helper()
	numbers := make(chan uint64)
	go func() {
		var line [64]byte
		number, _ := numberOf(line[:runtime.Stack(line[:], false)])
		numbers <- number
		f()
	}()
	number = <-numbers
	require.Eventually(t, func() bool {
		g, _ := take().Goroutine(number)
		return g.State == state
	}, 10*time.Second, time.Millisecond)
	return number
}

func waitInChannel(c chan int) { <-c }

func TestAGoroutineIsSeenWhereItIs(t *testing.T) {
	stop := make(chan int)
	var mu sync.Mutex
	var wait sync.WaitGroup
	wait.Add(1)
	mu.Lock()
	defer func() { close(stop); mu.Unlock(); wait.Done() }()
	for state, c := range map[string]struct {
		f    func()
		line string // in the innermost call of this file
	}{
		"chan receive": {func() { waitInChannel(stop) }, "goroutines.waitInChannel"},
		"select": {func() {
			select {
			case <-stop:
			case <-t.Context().Done():
			}
		}, "goroutines.TestAGoroutineIsSeenWhereItIs.func"},
		"sync.Mutex.Lock":     {func() { mu.Lock(); defer mu.Unlock() }, "goroutines.TestAGoroutineIsSeenWhereItIs.func"},
		"sync.WaitGroup.Wait": {func() { wait.Wait() }, "goroutines.TestAGoroutineIsSeenWhereItIs.func"},
	} {
		number := started(t, state, c.f)
		g, ok := take().Goroutine(number)
		require.True(t, ok)
		assert.Equal(t, "github.com/sqllease/sqllease/internal/goroutines.started", g.Created)
		assert.NotZero(t, g.Creator)
		assert.False(t, g.Cut)
		var calls []string
		for _, f := range g.Frames {
			if strings.HasSuffix(f.File, "goroutines_test.go") {
				assert.NotZero(t, f.Line)
				calls = append(calls, f.Function)
			}
		}
		assert.Contains(t, calls[0], c.line)
	}
}

func TestAGoroutineThatIsOverHadEnded(t *testing.T) {
	stop := make(chan int)
	number := started(t, "chan receive", func() { <-stop })
	there := clock.Now()
	assert.False(t, take().HadEnded(number, there))
	before := take()
	close(stop)
	require.Eventually(t, func() bool { return take().HadEnded(number, there) }, 10*time.Second, time.Millisecond)
	assert.False(t, before.HadEnded(number, there))
	assert.False(t, before.HadEnded(1<<63, clock.Now()), "it may have begun since")
}

// However many ask, the world stops for reports now and then.
func TestReportsHaveOneLookNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks Looks
		first := looks.Report()
		require.NotNil(t, first)
		for range 100 {
			assert.Same(t, first, looks.Report(), "it serves all who ask within a second")
		}
		pause(time.Second)
		assert.Nil(t, looks.Report())
		pause(reportEvery - time.Second - 1)
		assert.Nil(t, looks.Report())
		pause(max(reportEvery, shareOfTime*first.Pause))
		proved := looks.proved
		second := looks.Report()
		require.NotNil(t, second)
		assert.NotSame(t, first, second)
		assert.Equal(t, proved, looks.proved, "the garbage collector does not run each time")
		pause(reuseFor + 1)
		assert.Nil(t, looks.last, "its text is not kept")
	})
}

func TestALookThatTookLongIsNotRepeatedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks Looks
		require.NotNil(t, looks.Report())
		looks.next = looks.began.Add(shareOfTime * 200 * time.Millisecond)
		pause(199 * time.Second)
		assert.Nil(t, looks.Report())
		pause(time.Second)
		assert.NotNil(t, looks.Report())
		looks.began, looks.next, looks.last = clock.Now().Add(time.Hour), clock.Now().Add(2*time.Hour), nil
		assert.NotNil(t, looks.Report(), "the clock was set back")
		pause(2 * time.Second)
	})
}

// Who asks gets a look in any case, and takes none from the reports.
func TestALookOnDemandIsAtMostASecondOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks Looks
		first := looks.OnDemand()
		pause(time.Second - 1)
		assert.Same(t, first, looks.OnDemand())
		pause(1)
		second := looks.OnDemand()
		assert.NotSame(t, first, second)
		pause(time.Second)
		report := looks.Report()
		require.NotNil(t, report)
		pause(time.Second)
		assert.NotSame(t, report, looks.OnDemand())
		pause(time.Second)
	})
	var off *Looks
	assert.Nil(t, off.OnDemand())
	assert.Nil(t, off.Report())
}

// pause lets virtual time pass, and whatever is due by then happen.
func pause(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestReportsDoNotLookAtTooManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := Looks{most: 1}
		assert.Nil(t, looks.Report())
		assert.NotNil(t, looks.OnDemand(), "who asks accepts the pause")
		pause(time.Second)
	})
}

func TestWhatDoesNotFitIsUnknown(t *testing.T) {
	stop := make(chan int)
	defer close(stop)
	number := started(t, "chan receive", func() { <-stop })
	text, whole, _ := stacks(100, 300)
	assert.Len(t, text, 300)
	assert.False(t, whole)
	look := read(text, whole)
	_, known := look.Goroutine(number)
	assert.False(t, known)
	assert.False(t, look.HadEnded(number, 0))

	text, whole, _ = stacks(100, mostText)
	assert.True(t, whole, "it grows as needed")
	_, known = read(text, whole).Goroutine(number)
	assert.True(t, known)
}

// A goroutine that nothing can wake is known for it, where the runtime can prove that.
func TestAGoroutineThatIsBlockedForEver(t *testing.T) {
	able := pprof.Lookup("goroutineleak") != nil
	waits := make(chan chan int, 1)
	number := started(t, "chan receive", func() {
		c := make(chan int)
		waits <- c
		<-c
	})
	reachable := <-waits
	proveLeaks()
	g, _ := take().Goroutine(number)
	assert.False(t, g.Leaked, "this test can wake it")
	close(reachable)

	if able {
		leaked := started(t, "chan receive", neverEnds)
		proveLeaks()
		g, _ = take().Goroutine(leaked)
		assert.True(t, g.Leaked)
		assert.Equal(t, "chan receive", g.State)
		assert.Contains(t, g.Frames[0].Function, "neverEnds")
	}
}

func neverEnds() { <-make(chan int) }

//go:noinline
func deep(n int, stop chan int) {
	if n == 0 {
		<-stop
		return
	}
	deep(n-1, stop)
}

// BenchmarkLook is how long the world stands still for a look ("pause-ms"), and how long the
// whole look takes. Each goroutine has 10 calls on its stack.
func BenchmarkLook(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			stop := make(chan int)
			for range n {
				go deep(9, stop)
			}
			var paused time.Duration
			for b.Loop() {
				paused += take().Pause
			}
			b.ReportMetric(float64(paused.Microseconds())/1000/float64(b.N), "pause-ms")
			close(stop)
		})
	}
}
