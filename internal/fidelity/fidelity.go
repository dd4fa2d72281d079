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
			s.do(r)
			synctest.Wait()
		}
		r.stats()
		r.check(db.Close())
		synctest.Wait()
		o.calls = f.seen()
		o.opened, o.closed = f.connections()
		assert.Equal(t, o.opened, o.closed, "every connection is closed, once")
		o.faults = f.faults
	})
	return o
}

// Each runs every step on every kind of driver, bare and as opened.
func Each(t *testing.T, open Open) {
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
	assert.Equal(t, bare.results, wrapped.results)
	assert.Equal(t, bare.calls, wrapped.calls)
	assert.Empty(t, wrapped.faults)
	assert.Equal(t, bare.opened, wrapped.opened, "connections opened")
	assert.Equal(t, bare.closed, wrapped.closed, "connections closed")
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
	var p probe
	func() {
		defer func() { _ = recover() }() // of FailNow
		compare(&p, b, w)
	}()
	return !p.failed
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
