// Package behaviour does the same things with a database driver twice, bare
// and through sqllease, with the same expectations each time, and compares
// everything that an application could see.
package behaviour

import (
	"database/sql"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sqllease/sqllease"
)

// Limit is the most connections of a database: few, so that callers wait.
const Limit = 4

// Behaviour is something that an application does with a database.
type Behaviour struct {
	Name string
	Do   func(*Run)
}

// everywhere are the behaviours of every driver.
var everywhere = slices.Concat(types, results, statements, transactions, cancels, bulks)

// Test runs the behaviours of every driver and the driver's own, bare and
// through sqllease, and tells in one line how that went.
func Test(t *testing.T, d Driver) {
	all := slices.Concat(everywhere, d.Own)
	var passed, observations, differences int
	for _, b := range all {
		if t.Run(b.Name, func(t *testing.T) {
			bare, wrapped := d.bare(t, b), d.wrapped(t, b)
			observations += len(wrapped)
			differences += compare(t, bare, wrapped)
		}) {
			passed++
		}
	}
	t.Logf("%s: %d of %d behaviours passed, bare and wrapped; %d observations each, %d differences",
		d.Name, passed, len(all), observations, differences)
}

// bare does it with the driver itself.
func (d *Driver) bare(t *testing.T, b Behaviour) (seen []observation) {
	t.Run("bare", func(t *testing.T) {
		before := d.Sessions(t)
		db, err := sql.Open(d.Open, d.DSN)
		require.NoError(t, err)
		db.SetMaxOpenConns(Limit)
		db.SetMaxIdleConns(Limit)
		d.opens(t, db, before)
		seen = d.do(t, b, db, false)
		assert.NoError(t, db.Close())
		d.back(t, before)
	})
	return seen
}

// wrapped does it through sqllease, and looks for what is left behind.
func (d *Driver) wrapped(t *testing.T, b Behaviour) (seen []observation) {
	t.Run("wrapped", func(t *testing.T) {
		before := d.Sessions(t)
		spans := tracetest.NewSpanRecorder()
		db, err := sqllease.Open(d.Open, d.DSN, sqllease.Config{
			MaxOpen:        Limit,
			TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), // samples always
		})
		require.NoError(t, err)
		c, ok := sqllease.ConnectorOf(db)
		require.True(t, ok)
		d.opens(t, db, before)
		seen = d.do(t, b, db, true)
		soon(t, func() bool { return len(c.Leases()) == 0 }, "a lease is still open")
		assert.NoError(t, db.Close())
		soon(t, func() bool { return c.Stats().Open == 0 }, "a session is open after Close") // one may be closing
		assert.Zero(t, c.Stats().DiscoveryFailures)
		assert.NotEmpty(t, spans.Ended(), "no spans")
		soon(t, func() bool { return len(spans.Ended()) == len(spans.Started()) }, "a span has not ended") // a report may be told aside
		d.back(t, before)
	})
	return seen
}

// do does it in a test of its own, whose cleanups are over when it returns.
func (d *Driver) do(t *testing.T, b Behaviour, db *sql.DB, wrapped bool) (seen []observation) {
	t.Run("do", func(t *testing.T) {
		r := &Run{T: t, DB: db, Driver: d, SQL: d.SQL, Wrapped: wrapped}
		defer func() { seen = r.seen }()
		b.Do(r)
	})
	return seen
}

// opens opens the first session, and sees that it counts.
func (d *Driver) opens(t *testing.T, db *sql.DB, before int) {
	require.NoError(t, db.PingContext(t.Context()))
	require.Greater(t, d.Sessions(t), before, "a session does not count")
}

// back waits until the server has as many sessions as before the database was
// opened. Those that sleep on without a client are the server's own affair.
func (d *Driver) back(t *testing.T, before int) {
	soon(t, func() bool {
		if d.Abandon != nil {
			d.Abandon(t)
		}
		return d.Sessions(t) <= before
	}, "a session is still open on the server")
}

// compare reports what was seen differently, and counts it.
func compare(t *testing.T, bare, wrapped []observation) (differences int) {
	for i := range max(len(bare), len(wrapped)) {
		var b, w observation
		if i < len(bare) {
			b = bare[i]
		}
		if i < len(wrapped) {
			w = wrapped[i]
		}
		if !assert.ObjectsAreEqual(b, w) {
			differences++
			t.Errorf("the application sees a difference:\nbare:    %s: %#v\nwrapped: %s: %#v", b.what, b.value, w.what, w.value)
		}
	}
	return differences
}
