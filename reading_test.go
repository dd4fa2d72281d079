package sqllease

import (
	"context"
	"database/sql/driver"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Of most rows the time is not noted. What else is known exactly stays so, however
// many were read before.

// readingFake is a driver whose result sets have so many rows.
func readingFake(rows int) *leakFake {
	return &leakFake{rows: slices.Repeat([][]driver.Value{{int64(1)}}, rows), takes: map[string]time.Duration{}}
}

// readThese is how many rows are read: the time of the last is noted, or is not.
var readThese = []int{0, 1, 4, 5, 8, 16, 17, 20}

func TestACallWithRowsOpenBeganWhenItDid(t *testing.T) {
	for _, rows := range readThese {
		synctest.Test(t, func(t *testing.T) {
			f := readingFake(60)
			f.takes["exec"] = 3 * time.Minute
			p := newLeakPool(t, f, Config{LeakThreshold: time.Minute, SlowCallThreshold: time.Minute})
			conn := p.lease(t)
			leakPause(2 * time.Second)
			result, err := conn.QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			for range rows {
				require.True(t, result.Next())
			}
			began, called := time.Now(), make(chan error)
			go func() {
				_, err := conn.ExecContext(t.Context(), "UPDATE t SET a = 1")
				called <- err
			}()
			leakPause(30 * time.Second)
			assert.Equal(t, began, p.c.Leases()[0].Since, "after %d rows", rows)
			leakPause(30 * time.Second)
			assert.Equal(t, ClassBusy, p.one(t).Class, "after %d rows", rows)
			require.NoError(t, <-called)
			require.NoError(t, result.Close())
			require.NoError(t, conn.Close())
		})
	}
}

func TestASecondResultSetIsIdleSinceItsQuery(t *testing.T) {
	for _, rows := range readThese[1:] {
		synctest.Test(t, func(t *testing.T) {
			p := newLeakPool(t, readingFake(rows), Config{LeakThreshold: 30 * time.Second})
			conn := p.lease(t)
			leakPause(2 * time.Second)
			result, err := conn.QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			for result.Next() {
				continue
			}
			require.NoError(t, result.Err())
			second, err := conn.QueryContext(t.Context(), "SELECT b FROM t")
			require.NoError(t, err)
			leakPause(30 * time.Second)
			assert.Equal(t, 30*time.Second, p.one(t).at.Sub(p.c.Leases()[0].Since), "after %d rows", rows)
			require.NoError(t, second.Err())
			require.NoError(t, second.Close())
			require.NoError(t, conn.Close())
		})
	}
}

func TestARowAfterAReportIsNoted(t *testing.T) {
	for _, rows := range readThese {
		synctest.Test(t, func(t *testing.T) {
			p := newLeakPool(t, readingFake(60), Config{LeakThreshold: 30 * time.Second, ReclaimAfter: time.Minute})
			result, err := p.QueryContext(t.Context(), "SELECT a FROM t")
			require.NoError(t, err)
			for range rows {
				require.True(t, result.Next())
			}
			leakPause(40 * time.Second)
			p.one(t)
			require.True(t, result.Next())
			leakPause(30 * time.Second)
			assert.False(t, p.one(t).Reclaimed, "after %d rows", rows)
			leakPause(30 * time.Second)
			assert.True(t, p.one(t).Reclaimed, "after %d rows", rows)
			require.NoError(t, result.Err())
			require.NoError(t, result.Close())
		})
	}
}

// twoSets is a driver whose queries have two result sets of one row.
type twoSets struct{ *leakFake }

// Connect connects.
func (f twoSets) Connect(context.Context) (driver.Conn, error) {
	return twoSetsConn{&leakFakeConn{f.leakFake}}, nil
}

type twoSetsConn struct{ *leakFakeConn }

// QueryContext answers.
func (c twoSetsConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &twoSetsRows{f: c.f, sets: 2, rows: 1}, nil
}

type twoSetsRows struct {
	f          *leakFake
	sets, rows int
}

// Columns is one.
func (r *twoSetsRows) Columns() []string { return []string{"a"} }

// Close may take long.
func (r *twoSetsRows) Close() error {
	r.f.call("close")
	return nil
}

// Next reads a row.
func (r *twoSetsRows) Next(dest []driver.Value) error {
	if r.rows == 0 {
		return io.EOF
	}
	r.rows--
	dest[0] = int64(1)
	return nil
}

// HasNextResultSet is true of the first.
func (r *twoSetsRows) HasNextResultSet() bool { return r.sets > 1 }

// NextResultSet may take long.
func (r *twoSetsRows) NextResultSet() error {
	r.f.call("next set")
	r.sets, r.rows = r.sets-1, 1
	return nil
}

// What is left of a result set may take long to be read. That is no leak, and the
// connection comes back: there is no deadlock.
func TestWhatIsLeftOfRowsIsReadNotHeld(t *testing.T) {
	for _, slow := range []string{"next set", "close"} {
		synctest.Test(t, func(t *testing.T) {
			f := &leakFake{takes: map[string]time.Duration{slow: 5 * time.Minute}}
			var reports []Leak
			db, err := OpenDB(twoSets{f}, Config{MaxOpen: 1, LeakThreshold: 30 * time.Second, SlowCallThreshold: time.Hour, FailDeadlockAfter: time.Second, OnLeak: func(l Leak) {
				reports = append(reports, l)
			}})
			require.NoError(t, err)
			waited := make(chan error)
			result, err := db.QueryContext(t.Context(), "CALL p()")
			require.NoError(t, err)
			require.True(t, result.Next())
			go func() { waited <- db.PingContext(t.Context()) }()
			synctest.Wait()
			require.True(t, result.NextResultSet())
			require.NoError(t, result.Err())
			require.NoError(t, result.Close())
			require.NoError(t, <-waited)
			synctest.Wait()
			assert.Empty(t, reports, "a slow %s", slow)
			require.NoError(t, db.Close())
		})
	}
}

func TestReturnedRowsAreCountedWithoutDurations(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	db, err := OpenDB(readingFake(3), Config{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithView(sdkmetric.NewView(
		sdkmetric.Instrument{Name: "db.client.operation.duration"}, sdkmetric.Stream{Aggregation: sdkmetric.AggregationDrop{}})))})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	var n int64
	require.NoError(t, db.QueryRow("SELECT a FROM t").Scan(&n))
	var collected metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &collected))
	var names []string
	for _, scope := range collected.ScopeMetrics {
		for _, m := range scope.Metrics {
			names = append(names, m.Name)
		}
	}
	assert.Contains(t, names, "db.client.response.returned_rows")
	assert.NotContains(t, names, "db.client.operation.duration")
}
