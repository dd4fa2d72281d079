package main

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sqllease/sqllease/integration/internal/line"
)

// figures are what the process has.
type figures struct {
	goroutines int
	heap       uint64 // bytes that are reachable
}

func measured() figures {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what a pool of objects keeps goes with the second one
	runtime.ReadMemStats(&m)
	return figures{runtime.NumGoroutine(), m.HeapAlloc}
}

// growth is what the heap may grow by: that a few calls more are in flight.
const growth = 4 << 20

// patience is how long what has ended may take to go.
const patience = 30 * time.Second

// judged prints what was seen, and returns what leaked.
func (a *app) judged(admin *admin, way *line.Line, f *faults, empty, early figures) (leaks []string, err error) {
	leaked := func(format string, args ...any) { leaks = append(leaks, fmt.Sprintf(format, args...)) }
	way.Lost()
	var ids []int
	var pool int
	if !within(func() bool {
		a.useAll()
		ids, err = admin.sessions()
		pool = a.pool.Stats().Open
		return err == nil && len(ids) == pool
	}) {
		leaked("the server has %d connections, the pool %d: %v", len(ids), pool, err)
	}
	late := measured()
	kept, err := admin.statements()
	if err != nil {
		return nil, err
	}
	if most := len(a.stmts) * connections; kept > most {
		leaked("the server keeps %d statements, of %d at most", kept, most)
	}
	s := a.pool.Stats()
	fmt.Printf("calls: %d, failed: %d, with another caller's answer: %d, longest: %v\n",
		a.calls.Load(), a.failed.Load(), a.wrong.Load(), time.Duration(a.longest.Load()).Round(time.Millisecond))
	fmt.Printf("faults: %s\n", counted(f.counts))
	fmt.Printf("dials: %d, failed: %d; connections closed: %d\n", s.Dials, s.DialErrors, s.Closed.Total())
	fmt.Printf("open: %d in the pool, %d on the server, with %d prepared statements\n", pool, len(ids), kept)
	fmt.Printf("heap: %d KiB after a quarter of the time, %d KiB at the end\n", early.heap>>10, late.heap>>10)
	if a.wrong.Load() > 0 {
		leaked("%d answers were another caller's", a.wrong.Load())
	}
	if late.heap > early.heap+growth {
		leaked("the heap has grown by %d KiB", (late.heap-early.heap)>>10)
	}
	if s.InUse > 0 || s.Waiting > 0 || s.Dialing > 0 {
		leaked("the pool is not at rest: %d in use, %d waiting, %d being dialed", s.InUse, s.Waiting, s.Dialing)
	}
	for _, stmt := range a.stmts {
		_ = stmt.Close()
	}
	_ = a.db.Close()
	gone := within(func() bool {
		ids, err = admin.sessions()
		kept, _ = admin.statements()
		return err == nil && len(ids) == 0 && kept == 0 && measured().goroutines <= empty.goroutines
	})
	end := measured()
	fmt.Printf("after Close: %d connections and %d statements on the server, %d goroutines (%d before it was opened)\n",
		len(ids), kept, end.goroutines, empty.goroutines)
	if !gone {
		leaked("something outlived the pool")
	}
	return leaks, nil
}

// useAll uses every connection at once: what has died without a word is replaced.
func (a *app) useAll() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all, taken sync.WaitGroup
	taken.Add(connections)
	for range connections {
		all.Go(func() {
			conn, err := a.db.Conn(ctx)
			taken.Done()
			taken.Wait()
			if err == nil {
				_, _ = conn.ExecContext(ctx, "DO 1")
				_ = conn.Close()
			}
		})
	}
	all.Wait()
}

// within waits until something is so.
func within(is func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if is() {
			return true
		}
	}
	return false
}

func counted(counts map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%d %s", counts[name], name))
	}
	return strings.Join(all, ", ")
}
