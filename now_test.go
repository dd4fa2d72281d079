//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/goroutines"
)

// What the goroutine that has a connection does now.

// nowSiteBelow is the site of the line below its caller's.
func nowSiteBelow() string {
	pc, file, line, _ := runtime.Caller(1)
	dir, file := filepath.Split(file)
	return fmt.Sprintf("%s/%s:%d %s", filepath.Base(dir), file, line+1, path.Base(runtime.FuncForPC(pc).Name()))
}

// nowHolder is a goroutine that holds a transaction.
type nowHolder struct {
	number  uint64
	site    string // where it waits
	stopped sync.WaitGroup
}

// hold begins a transaction on a goroutine, and has it do f, which says where it waits first.
func (h *nowHolder) hold(t *testing.T, db *sql.DB, f func(tx *sql.Tx, at chan<- string)) {
	at, number := make(chan string, 1), make(chan uint64, 1)
	h.stopped.Go(func() {
		number <- callstack.Goroutine()
		tx, err := db.BeginTx(t.Context(), nil)
		if assert.NoError(t, err) {
			defer func() { _ = tx.Rollback() }()
		}
		f(tx, at)
	})
	h.number, h.site = <-number, <-at
}

// nowOf looks at the goroutines of the oldest lease until they do that, each, and returns them.
func nowOf(t *testing.T, c *Connector, doing ...string) (now []Goroutine) {
	t.Helper()
	require.Eventually(t, func() bool {
		c.reports.looks = &goroutines.Looks{} // else it would be the look of the last second
		now = c.LeasesNow()[0].Now
		return slices.EqualFunc(now, doing, func(g Goroutine, doing string) bool { return g.Doing == doing })
	}, 10*time.Second, time.Millisecond, "%v", now)
	return now
}

func nowPool(t *testing.T, inner driver.Connector, cfg Config) (*sql.DB, *Connector) {
	t.Helper()
	db, err := OpenDB(inner, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	c, _ := ConnectorOf(db)
	return db, c
}

// The line that a person reads, for what goroutines of services do while they hold a connection.
func TestWhatAHolderDoesNow(t *testing.T) {
	stop := make(chan struct{})
	var mu sync.Mutex
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	defer slow.Close()
	bare := sql.OpenDB(&leakFake{})
	bare.SetMaxOpenConns(1)
	other, _ := nowPool(t, &leakFake{}, Config{Name: "reports", MaxOpen: 1})
	for _, db := range []*sql.DB{bare, other} { // which have no connection left
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close() //nolint:errcheck // nothing is looked at any more
	}
	mu.Lock()
	var holders []*nowHolder
	ctx, cancel := context.WithCancel(t.Context())
	defer func() {
		close(stop)
		mu.Unlock()
		cancel()
		for _, h := range holders {
			h.stopped.Wait()
		}
		assert.NoError(t, bare.Close())
	}()

	for doing, f := range map[string]func(tx *sql.Tx, db *sql.DB, at chan<- string){
		"waits to receive from a channel": func(_ *sql.Tx, _ *sql.DB, at chan<- string) {
			at <- nowSiteBelow()
			<-stop
		},
		"waits in a select for a channel": func(_ *sql.Tx, _ *sql.DB, at chan<- string) {
			at <- nowSiteBelow()
			select {
			case <-stop:
			case <-ctx.Done():
			}
		},
		"waits for a lock": func(_ *sql.Tx, _ *sql.DB, at chan<- string) {
			at <- nowSiteBelow()
			mu.Lock()
			defer mu.Unlock()
		},
		"waits for the answer to an HTTP request": func(_ *sql.Tx, _ *sql.DB, at chan<- string) {
			at <- nowSiteBelow()
			answer, err := slow.Client().Get(slow.URL)
			if assert.NoError(t, err) {
				_ = answer.Body.Close()
			}
		},
		"waits for a connection of this pool": func(_ *sql.Tx, db *sql.DB, at chan<- string) {
			at <- nowSiteBelow()
			_ = db.PingContext(ctx)
		},
		`waits for a connection of pool "reports"`: func(_ *sql.Tx, _ *sql.DB, at chan<- string) {
			at <- nowSiteBelow()
			_ = other.PingContext(ctx)
		},
		"waits for a connection in the queue of database/sql": func(_ *sql.Tx, _ *sql.DB, at chan<- string) {
			at <- nowSiteBelow()
			_ = bare.PingContext(ctx)
		},
	} {
		db, c := nowPool(t, &leakFake{}, Config{MaxOpen: 1})
		h := &nowHolder{}
		holders = append(holders, h)
		h.hold(t, db, func(tx *sql.Tx, at chan<- string) { f(tx, db, at) })
		now := nowOf(t, c, doing) // one, which took the connection, and used it last
		assert.Equal(t, h.number, now[0].Number)
		assert.True(t, now[0].Took && now[0].Used)
		assert.Equal(t, h.site, now[0].Site, doing)
		assert.Regexp(t, `^goroutine \d+ `+doing+" at "+h.site+"(, for at least .*)?$", strings.NewReplacer("(", `\(`, ")", `\)`).Replace(now[0].String()))
		assert.Contains(t, now[0].Stack, "now_test.go")
		assert.NotContains(t, now[0].Stack, "0xc", "no arguments are shown")
		assert.Equal(t, "sync.(*WaitGroup).Go", now[0].CreatedBy)
		assert.NotZero(t, now[0].Creator)
	}
}

// A handler that has returned without closing: its goroutine waits for the next request.
func TestAHandlerThatHasReturned(t *testing.T) {
	db, c := nowPool(t, &leakFake{}, Config{})
	var left *sql.Tx
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { left = leakTx(t, db).(leakTxCloser).Tx }))
	defer server.Close()
	answer, err := server.Client().Get(server.URL)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	now := nowOf(t, c, "waits for the network")
	assert.Empty(t, now[0].Site)
	assert.Contains(t, now[0].Stack, "net/http.(*conn).serve")
	require.NoError(t, left.Rollback())
}

// A goroutine that has ended cannot give anything back; nor can one that waits for others.
func TestAHolderThatHasEnded(t *testing.T) {
	db, c := nowPool(t, &leakFake{}, Config{})
	var h nowHolder
	var left *sql.Tx
	h.stopped.Go(func() { left = leakTx(t, db).(leakTxCloser).Tx; h.number = callstack.Goroutine() })
	h.stopped.Wait()
	now := nowOf(t, c, "")
	assert.Equal(t, []Goroutine{{Number: h.number, Took: true, Used: true, Ended: true}}, now)
	assert.Equal(t, fmt.Sprintf("goroutine %d has ended", h.number), now[0].String())
	assert.Contains(t, c.LeasesNow()[0].String(), fmt.Sprintf("; now: goroutine %d has ended", h.number))
	require.NoError(t, left.Rollback())
}

// The goroutine of the runtime on which cleanups and finalizers run is in no look once they
// are done, and has not ended.
func TestAHolderThatIsTheRuntimes(t *testing.T) {
	for name, arrange := range map[string]func(of *[16]int, f func()){
		"cleanup":   func(of *[16]int, f func()) { runtime.AddCleanup(of, func(int) { f() }, 0) },
		"finalizer": func(of *[16]int, f func()) { runtime.SetFinalizer(of, func(*[16]int) { f() }) },
	} {
		db, c := nowPool(t, &leakFake{}, Config{})
		took := make(chan *sql.Tx, 1)
		arrange(new([16]int), func() { took <- leakTx(t, db).(leakTxCloser).Tx })
		require.Eventually(t, func() bool { runtime.GC(); return len(took) == 1 }, 10*time.Second, time.Millisecond, name)
		c.reports.looks = &goroutines.Looks{}
		assert.Empty(t, c.LeasesNow()[0].Now, name)
		require.NoError(t, (<-took).Rollback())
	}
}

func TestATransactionThatWasHandedToAWorker(t *testing.T) {
	db, c := nowPool(t, &leakFake{}, Config{})
	stop := make(chan struct{})
	var took, used nowHolder
	took.hold(t, db, func(tx *sql.Tx, at chan<- string) {
		used.stopped.Go(func() {
			_, err := tx.ExecContext(t.Context(), "UPDATE t SET a = 1")
			assert.NoError(t, err)
			used.number = callstack.Goroutine()
			used.site = nowSiteBelow()
			at <- nowSiteBelow()
			<-stop
		})
		used.stopped.Wait()
	})
	now := nowOf(t, c, "waits to receive from a channel", "waits for other goroutines")
	assert.Equal(t, used.number, now[0].Number, "first the one that used it last")
	assert.Equal(t, fmt.Sprintf("goroutine %d, which used it last, waits to receive from a channel at %s", used.number, took.site), now[0].String())
	assert.Regexp(t, fmt.Sprintf(`^goroutine %d, which took it, waits for other goroutines at .*now_test.go:\d+ sqllease\.Test.*$`, took.number), now[1].String())
	close(stop)
	took.stopped.Wait()
}

// It is in the report of a leak: in the text, the log and the span. In one of a return it is not.
func TestAReportSaysWhereTheHolderIsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, spans := &keptLog{}, tracetest.NewSpanRecorder()
		p := newLeakPool(t, &leakFake{}, Config{Logger: slog.New(log), TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))})
		p.c.reports.looks = &goroutines.Looks{}
		var h nowHolder
		h.hold(t, p.DB, func(_ *sql.Tx, at chan<- string) {
			at <- nowSiteBelow()
			time.Sleep(40 * time.Second) //nolint:forbidigo // it is what the goroutine is to be found in
		})
		leakPause(30 * time.Second)
		l := p.one(t)
		now := fmt.Sprintf("goroutine %d sleeps at %s", h.number, h.site)
		require.Len(t, l.Now, 1)
		assert.Equal(t, now, l.Now[0].String())
		assert.Contains(t, l.String(), "\n  now        "+now+"\n")
		assert.Contains(t, l.String(), fmt.Sprintf("\n  stack of goroutine %d now\n    time.Sleep\n", h.number))
		records := log.take()
		require.Len(t, records, 1)
		assert.Equal(t, now, records[0].attrs["leak.now"])
		assert.Contains(t, records[0].attrs["leak.now_stack"], " < "+h.site+" < ")
		require.Len(t, leakSpans(spans), 1)
		assert.Contains(t, leakSpans(spans)[0].Attributes(), attribute.String("sqllease.now", now))

		leakPause(30 * time.Second)
		back := p.one(t)
		assert.True(t, back.Returned)
		assert.Empty(t, back.Now)
		assert.NotContains(t, back.String(), "\n  now ")
		h.stopped.Wait()
	})
}

func TestASlowCallSaysWhereItIsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": time.Minute}}, Config{SlowCallThreshold: 30 * time.Second})
		p.c.reports.looks = &goroutines.Looks{}
		var h nowHolder
		h.hold(t, p.DB, func(tx *sql.Tx, at chan<- string) {
			at <- nowSiteBelow()
			_, err := tx.ExecContext(t.Context(), "UPDATE t SET a = 1")
			assert.NoError(t, err)
		})
		leakPause(30 * time.Second)
		l := p.one(t)
		s := l.slowCall()
		require.Len(t, s.Now, 1)
		assert.Equal(t, h.site, s.Now[0].Site, "the driver's own line is no line of the application's")
		assert.Contains(t, s.String(), fmt.Sprintf("\n  now        goroutine %d waits to receive from a channel in a call of database/sql at %s\n", h.number, h.site))
		leakPause(30 * time.Second)
		h.stopped.Wait()
		assert.True(t, p.one(t).Returned)
	})
}

// However many pools report, the process is looked at once in 5 s. Reports without a look say
// nothing of it, and none waits for one.
func TestManyPoolsLookNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &goroutines.Looks{}
		var seen, reports int
		for i := range 20 {
			p := newLeakPool(t, &leakFake{}, Config{Name: fmt.Sprint(i), LeakThreshold: 10*time.Second + time.Duration(i)*200*time.Millisecond})
			p.c.reports.looks = shared
			conn := p.lease(t)
			start := time.Now()
			defer func() {
				for _, l := range p.take() {
					reports++
					assert.Equal(t, l.Threshold, l.at.Sub(start), "it did not wait")
					if len(l.Now) > 0 {
						seen++
					}
					assert.Equal(t, len(l.Now) > 0, strings.Contains(l.String(), "\n  now "))
				}
				require.NoError(t, conn.Close())
				if i == 0 { // the last to be deferred
					assert.Equal(t, 20, reports)
					assert.Equal(t, 5, seen, "those within a second have the same")
				}
			}()
		}
		leakPause(50 * time.Second)
	})
}

// Leases that are reported together are looked at together.
func TestOneLookIsForAllReportsOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{})
		p.c.reports.looks = &goroutines.Looks{}
		for range 5 {
			conn := p.lease(t)
			defer conn.Close() //nolint:errcheck // nothing is looked at any more
		}
		leakPause(30 * time.Second)
		reports := p.take()
		require.Len(t, reports, 5)
		for _, l := range reports {
			assert.Len(t, l.Now, 1)
		}
	})
}

func TestReportsDoNotLookIfTheyAreNotTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{NoGoroutineLook: true})
		p.c.reports.looks = &goroutines.Looks{}
		conn := p.lease(t)
		leakPause(30 * time.Second)
		assert.Empty(t, p.one(t).Now)
		assert.Empty(t, p.c.Leases()[0].Now)
		assert.Len(t, p.c.LeasesNow()[0].Now, 1, "who asks gets it in any case")
		require.NoError(t, conn.Close())
		leakPause(time.Second)
	})
}

// A goroutine that has left the application's code, as one of a server that waits for the next
// request, is said to be in none of it.
func TestWhatIsSaidOfAGoroutine(t *testing.T) {
	for want, g := range map[string]Goroutine{
		"goroutine 7 waits for the network, in no code of yours":                                     {Number: 7, Took: true, Used: true, Doing: "waits for the network"},
		"goroutine 7, which took it, waits for a lock at a/b.go:1 c.d, for at least 1 minute":        {Number: 7, Took: true, Doing: "waits for a lock", Site: "a/b.go:1 c.d", For: time.Minute},
		"goroutine 7, which used it last, waits for a lock at a/b.go:1 c.d, for at least 60 minutes": {Number: 7, Used: true, Doing: "waits for a lock", Site: "a/b.go:1 c.d", For: time.Hour},
		"goroutine 7 waits for a connection of this pool at a/b.go:1 c.d, for at least 2.5s":         {Number: 7, Took: true, Used: true, Doing: "waits for a connection of this pool", Site: "a/b.go:1 c.d", For: 2500 * time.Millisecond},
		"goroutine 7 waits in an empty select at a/b.go:1 c.d, for ever: nothing can wake it":        {Number: 7, Took: true, Used: true, Doing: "waits in an empty select", Site: "a/b.go:1 c.d", For: time.Hour, ForEver: true},
		"goroutine 7, which took it, has ended":                                                      {Number: 7, Took: true, Ended: true},
	} {
		assert.Equal(t, want, g.String())
	}
	assert.Equal(t, `is in the state "of the future"`, doingIn("of the future", callstack.Present{}))
}

// nowNeverEnds is a goroutine that nothing can wake: see TestMain.
func nowNeverEnds(at chan<- string) {
	at <- nowSiteBelow()
	<-make(chan int)
}

// What is blocked for ever is known for it: by its state, or where the runtime can prove it.
func TestAHolderThatIsBlockedForEver(t *testing.T) {
	var g Goroutine
	g.describe(goroutines.Goroutine{State: "select (no cases)"}, nil)
	assert.True(t, g.ForEver)
	g.describe(goroutines.Goroutine{State: "chan receive"}, nil)
	assert.False(t, g.ForEver)

	if pprof.Lookup("goroutineleak") == nil {
		g.describe(goroutines.Goroutine{State: "chan receive", Leaked: true}, nil)
		assert.True(t, g.ForEver)
		return
	}
	db, c := nowPool(t, &leakFake{}, Config{})
	var left *sql.Tx
	at := make(chan string)
	go func() {
		left = leakTx(t, db).(leakTxCloser).Tx
		nowNeverEnds(at)
	}()
	site := <-at
	nowOf(t, c, "waits to receive from a channel")
	c.reports.looks = &goroutines.Looks{}
	l := c.Leases()[0]
	c.reports.lookNow(&l)
	require.Len(t, l.Now, 1)
	assert.Equal(t, fmt.Sprintf("goroutine %d waits to receive from a channel at %s, for ever: nothing can wake it", l.Now[0].Number, site), l.Now[0].String())
	require.NoError(t, left.Rollback())
}

// A look that is younger than a second serves again, and may be older than a goroutine.
func TestAGoroutineThatBeganAfterTheLookHasNotEnded(t *testing.T) {
	look := (&goroutines.Looks{}).OnDemand()
	later := look.Began() + 1
	const gone = 1 << 60
	h := hands{took: gone, used: gone, start: look.Began(), read: later}
	assert.Equal(t, []Goroutine{{Number: gone, Took: true, Used: true, Ended: true}}, h.nowOf(look, nil))
	h = hands{took: gone, used: gone, start: later, read: later}
	assert.Empty(t, h.nowOf(look, nil))
	h = hands{took: gone, used: gone + 1, start: look.Began(), read: later}
	assert.Equal(t, []Goroutine{{Number: gone, Took: true, Ended: true}}, h.nowOf(look, nil), "nobody knows when the other one began")
}

// A pool that is closed, or forgotten, is in no list.
func TestAPoolIsListedAsLongAsThereIsOne(t *testing.T) {
	c, err := Wrap(&leakFake{}, Config{Name: "listed"})
	require.NoError(t, err)
	assert.Equal(t, "listed", c.queue.cfg.Name)
	assert.True(t, slices.Contains(queues.list(), &c.queue))
	require.NoError(t, c.Close())
	assert.False(t, slices.Contains(queues.list(), &c.queue))

	_, err = Wrap(&leakFake{}, Config{Name: "forgotten", MeterProvider: noop.NewMeterProvider()})
	require.NoError(t, err)
	assert.Eventually(t, func() bool {
		runtime.GC()
		for _, q := range queues.list() {
			if q.cfg.Name == "forgotten" {
				return false
			}
		}
		return true
	}, 10*time.Second, time.Millisecond)
}
