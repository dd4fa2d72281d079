package sqllease

import (
	"context"
	"database/sql/driver"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func TestMetricsHaveTheNamesAndUnitsOfTheConventions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{answer: []driver.Value{int64(1)}}
		p := newTelemetryPool(t, f, Config{Dialect: DialectCockroachDB, NetworkIdleLimit: time.Minute, MaxOpen: 2, LeakThreshold: 2 * time.Second})
		conn, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		rows, err := conn.QueryContext(t.Context(), "SELECT 1")
		require.NoError(t, err)
		require.NoError(t, rows.Close())
		second, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		elapse(3 * time.Second)
		require.NoError(t, second.Close())
		second, err = p.db.Conn(t.Context())
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		_, err = p.db.Conn(ctx) // a deadlock, since this goroutine has all there are
		require.Error(t, err)
		drop(t, conn)
		require.NoError(t, second.Close())
		elapse(time.Second)

		units := map[string]string{}
		for _, m := range p.collect(t) {
			units[m.Name] = m.Unit
			for _, set := range attributeSets(m) {
				name, _ := set.Value("db.client.connection.pool.name")
				assert.Equal(t, "orders", name.AsString(), m.Name)
				system, _ := set.Value("db.system.name")
				assert.Equal(t, "cockroachdb", system.AsString(), m.Name)
			}
		}
		assert.Equal(t, map[string]string{
			"db.client.connection.count":            "{connection}",
			"db.client.connection.max":              "{connection}",
			"db.client.connection.idle.min":         "{connection}",
			"db.client.connection.pending_requests": "{request}",
			"db.client.connection.timeouts":         "{timeout}",
			"db.client.connection.create_time":      "s",
			"db.client.connection.wait_time":        "s",
			"db.client.connection.use_time":         "s",
			"db.client.operation.duration":          "s",
			"db.client.response.returned_rows":      "{row}",
			"sqllease.leaks":                        "{lease}",
			"sqllease.lease.count":                  "{lease}",
			"sqllease.deadlocks":                    "{deadlock}",
			"sqllease.nested_acquires":              "{place}",
			"sqllease.standstills":                  "{standstill}",
			"sqllease.session.closed":               "{connection}",
			"sqllease.session.leftovers":            "{connection}",
			"sqllease.slow_calls":                   "{call}",
			"sqllease.unused_time":                  "s",
			"sqllease.acquire.part":                 "s",
			"sqllease.oldest_hold":                  "s",
			"sqllease.oldest_wait":                  "s",
			"sqllease.idle_limit":                   "s",
			"sqllease.lifetime":                     "s",
		}, units)
	})
}

func TestNothingIsCountedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &telemetryFake{answer: []driver.Value{int64(1), int64(2)}, on: slow("query", time.Millisecond)}
		p := newTelemetryPool(t, f, Config{MaxOpen: 2})
		const users, uses = 8, 25
		var wait sync.WaitGroup
		for range users {
			wait.Go(func() {
				for range uses {
					var n int
					assert.NoError(t, p.db.QueryRowContext(underParent(t), "SELECT 1 FROM t").Scan(&n))
				}
			})
		}
		wait.Wait()
		const all = users * uses
		for _, histogram := range []string{
			"db.client.operation.duration", "db.client.response.returned_rows",
			"db.client.connection.wait_time", "db.client.connection.use_time",
		} {
			assert.Equal(t, uint64(all), p.total(t, histogram), histogram)
		}
		assert.Equal(t, uint64(p.c.Stats().Dials), p.total(t, "db.client.connection.create_time"))
		queries := 0
		for _, s := range p.take() {
			if s.Name() != "pool.acquire" {
				queries++
			}
		}
		assert.Equal(t, all, queries)

		require.NoError(t, p.db.Close())
		assert.Equal(t, int64(f.opened), p.sum(t, "sqllease.session.closed"))
	})
}

func TestACollectionSeesTheConfiguredMinimum(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{MinIdle: 2})
	assert.Equal(t, int64(2), p.sum(t, "db.client.connection.idle.min"))
}

func TestACollectionSeesThePoolAsItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 3})
		first, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		second, err := p.db.Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, second.Close())
		elapse(5 * time.Second)
		got := map[string]float64{}
		for _, m := range p.collect(t) {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				if data.IsMonotonic {
					continue // nothing has happened yet
				}
				for _, point := range data.DataPoints {
					state, _ := point.Attributes.Value("db.client.connection.state")
					use, _ := point.Attributes.Value("sqllease.lease.use")
					got[m.Name+state.AsString()+use.AsString()] = float64(point.Value)
				}
			case metricdata.Gauge[float64]:
				got[m.Name] = data.DataPoints[0].Value
			}
		}
		assert.Equal(t, map[string]float64{
			"db.client.connection.countused": 1, "db.client.connection.countidle": 1, "db.client.connection.countdialing": 0,
			"db.client.connection.max": 3, "db.client.connection.idle.min": 0, "db.client.connection.pending_requests": 0,
			"sqllease.lease.countbusy": 0, "sqllease.lease.countopen_rows": 0, "sqllease.lease.countin_tx": 0, "sqllease.lease.countidle": 1,
			"sqllease.oldest_hold": 5, "sqllease.oldest_wait": 0, "sqllease.idle_limit": 0, "sqllease.lifetime": 0,
		}, got)
		require.NoError(t, first.Close())
	})
}

// What a pool costs in series, before and after it is closed: an SDK keeps those of counters
// and histograms for ever, and has a bound for each instrument.
func TestAPoolMakesFewSeries(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 3})
	series := func() (all, ofOne int) {
		for _, m := range p.collect(t) {
			n := len(attributeSets(m))
			all, ofOne = all+n, max(ofOne, n)
		}
		return all, ofOne
	}
	exec(t, underParent(t), p.db, "DO 1")
	all, _ := series()
	assert.LessOrEqual(t, all, 28)
	require.NoError(t, p.db.Close())
	all, ofOne := series()
	assert.LessOrEqual(t, all, 15)
	assert.LessOrEqual(t, ofOne, 2)
}
