// Package fidelity is the proof that a wrapped driver behaves as the bare one:
// the same calls on both, over every kind of driver, come to the same. What an
// application sees is compared, and what the driver sees.
package fidelity

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Open opens a database on a connector: bare, or wrapped in one way or another.
type Open func(driver.Connector) (*sql.DB, error)

func bare(c driver.Connector) (*sql.DB, error) { return sql.OpenDB(c), nil }

// Outcome is what came of steps.
type Outcome struct {
	results        []string
	errs           []error
	calls          []string // of the driver
	faults         []string // calls that a driver must not see
	opened, closed int      // connections
}

// play runs steps on a pool of their own.
func play(t *testing.T, p Profile, open Open, steps ...Step) Outcome {
	var o Outcome
	synctest.Test(t, func(t *testing.T) {
		f := newFake(p)
		db, err := open(f.connector())
		require.NoError(t, err)
		r := &run{Outcome: &o, t: t, db: db, f: f}
		for _, s := range steps {
			r.take(s)
			synctest.Wait()
		}
		r.stats()
		r.check(db.Close())
		synctest.Wait()
		o.calls = f.seen()
		o.opened, o.closed = f.connections()
		o.faults = f.faults
	})
	return o
}

// take takes a step. One that panics ends there.
func (r *run) take(s Step) {
	defer r.recovered()
	s.do(r)
}

func (r *run) recovered() {
	if v := recover(); v != nil {
		r.note("panic: %v", v)
	}
}

// Finding is a step in which a wrapper differs from the bare driver.
type Finding struct {
	Step  string
	Seen  int // on how many kinds of driver the application sees a difference
	Calls int // on how many others the driver sees one
}

// Survey runs every step on every kind of driver, with two ways of opening a
// database, and returns the steps in which they differ. It is for finding out
// what other wrappers change; their deeds do not fail the test.
func Survey(t *testing.T, bare, open Open) (findings []Finding, programs int) {
	for _, s := range Steps {
		f := Finding{Step: s.Name}
		for _, p := range Profiles {
			b, w := play(t, p, bare, s), play(t, p, open, s)
			programs++
			switch {
			case differ(func(t tester) { sameSeen(t, b, w) }):
				f.Seen++
			case differ(func(t tester) { same(t, b, w) }):
				f.Calls++
			}
		}
		if f.Seen+f.Calls > 0 {
			findings = append(findings, f)
		}
	}
	return findings, programs
}

// Each runs every step on every kind of driver, bare and as opened.
func Each(t *testing.T, open Open) { Against(t, bare, open) }

// Against is Each with another way to open in place of the bare one.
func Against(t *testing.T, bare, open Open) {
	for _, p := range Profiles {
		t.Run(p.Name, func(t *testing.T) {
			for _, s := range Steps {
				t.Run(s.Name, func(t *testing.T) {
					b, w := play(t, p, bare, s), play(t, p, open, s)
					if d, ok := differences[s.Name]; ok {
						d.is(t, b, w)
						return
					}
					same(t, b, w)
				})
			}
		})
	}
}

// tester is what a comparison needs of a test.
type tester interface {
	require.TestingT
	Helper()
}

// same compares what an application saw and what the driver saw.
func same(t tester, bare, wrapped Outcome) {
	t.Helper()
	assert.Equal(t, bare.calls, wrapped.calls)
	assert.Empty(t, wrapped.faults)
	sameSeen(t, bare, wrapped)
}

// sameSeen compares what an application saw, and how many connections it had.
func sameSeen(t tester, bare, wrapped Outcome) {
	t.Helper()
	assert.Equal(t, bare.results, wrapped.results)
	assert.Equal(t, bare.opened, wrapped.opened, "connections opened")
	assert.Equal(t, bare.closed, wrapped.closed, "connections closed")
	assert.Equal(t, wrapped.opened, wrapped.closed, "every connection is closed, once")
	require.Len(t, wrapped.errs, len(bare.errs))
	for i := range bare.errs {
		assertSameError(t, bare.errs[i], wrapped.errs[i])
	}
}

// sentinels are the errors that code compares with ==.
var sentinels = []error{
	errBroken, errRefused, errShut, driver.ErrBadConn, driver.ErrSkip, driver.ErrRemoveArgument,
	sql.ErrNoRows, sql.ErrTxDone, sql.ErrConnDone, io.EOF, context.Canceled, context.DeadlineExceeded,
}

func assertSameError(t tester, bare, wrapped error) {
	t.Helper()
	assert.Equal(t, fmt.Sprintf("%T %v", bare, bare), fmt.Sprintf("%T %v", wrapped, wrapped))
	for _, s := range sentinels {
		assert.Equal(t, bare == s, wrapped == s, "== %v", s)
		assert.Equal(t, errors.Is(bare, s), errors.Is(wrapped, s), "is %v", s)
	}
}

// compare compares the outcomes of programs, in which the order of some calls
// is open.
func compare(t tester, b, w Outcome) {
	b.calls, w.calls = withoutCloses(t, b, w)
	same(t, b, w)
}

// like compares without failing the test.
func like(b, w Outcome) bool {
	return !differ(func(t tester) { compare(t, b, w) })
}

func differ(compare func(tester)) bool {
	var p probe
	p.ask(compare)
	return p.failed
}

// ask runs assertions that may fail.
func (p *probe) ask(f func(tester)) {
	defer func() { _ = recover() }() // of FailNow
	f(p)
}

// probe is a test that may fail.
type probe struct{ failed bool }

func (p *probe) Errorf(string, ...any) { p.failed = true }
func (p *probe) FailNow()              { p.failed = true; panic(p) }
func (p *probe) Helper()               {}

// withoutCloses takes the closing of statements out of two logs: it comes later
// where the handle is idle, and it must come. The bare driver may even see it
// on a connection that is closed, the wrapped one never.
func withoutCloses(t tester, bare, wrapped Outcome) (b, w []string) {
	closes := func(calls []string) (rest, closed []string) {
		for _, c := range calls {
			if strings.Contains(c, " stmt ") && strings.HasSuffix(c, " Close") {
				closed = append(closed, c)
			} else {
				rest = append(rest, c)
			}
		}
		return rest, closed
	}
	b, bareClosed := closes(bare.calls)
	w, wrappedClosed := closes(wrapped.calls)
	bareClosed = slices.DeleteFunc(bareClosed, func(c string) bool { return slices.Contains(bare.faults, c+": the connection is closed") })
	require.ElementsMatch(t, bareClosed, wrappedClosed, "statements closed")
	return byConn(b), byConn(w)
}

// byConn sorts a log by connection: what goes on at once on two of them has no
// order.
func byConn(calls []string) []string {
	slices.SortStableFunc(calls, func(a, b string) int {
		connA, _, _ := strings.Cut(a, ": ")
		connB, _, _ := strings.Cut(b, ": ")
		return strings.Compare(connA, connB)
	})
	return calls
}
