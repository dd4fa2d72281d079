package orm

import (
	"context"
	"database/sql"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// onePool is a pool with a limit of 1, whose connection is held, and for which a caller
// waits, until freed is called.
func onePool(t *testing.T) (db *sql.DB, pool *sqllease.Connector, freed func()) {
	db, err := openMySQL(maria.DSN(""), sqllease.Config{MaxOpen: 1})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	pool, _ = sqllease.ConnectorOf(db)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	served := make(chan error)
	go func() { served <- db.PingContext(context.WithoutCancel(t.Context())) }()
	require.Eventually(t, func() bool { return pool.Stats().Waiting == 1 }, 10*time.Second, time.Millisecond)
	return db, pool, func() {
		require.NoError(t, conn.Close())
		require.NoError(t, <-served)
	}
}

// figuresOf are the values of a collector's metrics, by name.
func figuresOf(t *testing.T, c prometheus.Collector) map[string]float64 {
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(c))
	families, err := registry.Gather()
	require.NoError(t, err)
	figures := map[string]float64{}
	for _, family := range families {
		require.Len(t, family.GetMetric(), 1)
		metric := family.GetMetric()[0]
		assert.Equal(t, "shop", metric.GetLabel()[0].GetValue())
		figures[family.GetName()] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
	}
	return figures
}

// TestACollectorOfDBStats compares what is shown of a pool that is full with what
// Prometheus' own collector sees of its *sql.DB.
func TestACollectorOfDBStats(t *testing.T) {
	db, pool, freed := onePool(t)
	usual := figuresOf(t, collectors.NewDBStatsCollector(db, "shop"))
	ours := figuresOf(t, poolCollector{pool, "shop"})
	assert.EqualValues(t, 100003, usual["go_sql_max_open_connections"])
	assert.EqualValues(t, 2, usual["go_sql_in_use_connections"], "who waits is counted")
	assert.EqualValues(t, 1, ours["go_sql_max_open_connections"])
	assert.EqualValues(t, 1, ours["go_sql_in_use_connections"])
	for name := range usual {
		assert.Contains(t, ours, name)
	}
	assert.Len(t, ours, len(usual))
	freed()
	usual = figuresOf(t, collectors.NewDBStatsCollector(db, "shop"))
	ours = figuresOf(t, poolCollector{pool, "shop"})
	assert.Zero(t, usual["go_sql_wait_count_total"], "the wait was not seen")
	assert.EqualValues(t, 1, ours["go_sql_wait_count_total"])
	assert.NotZero(t, ours["go_sql_wait_duration_seconds_total"])

	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(collectors.NewDBStatsCollector(db, "other")))
	assert.ErrorContains(t, registry.Register(poolCollector{pool, "shop"}), "help", "beside the other, for another database")
}

// asked is what a handler answers.
func asked(t *testing.T, handler http.Handler) (status int, body string) {
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ready", nil))
	return answer.Code, answer.Body.String()
}

// TestReadinessIsToldFromTheQueue asks a pool that is full, and one that is free.
func TestReadinessIsToldFromTheQueue(t *testing.T) {
	db, pool, freed := onePool(t)
	status, _ := asked(t, ready(pool, time.Hour))
	assert.Equal(t, http.StatusOK, status, "a wait is no failure")
	status, body := asked(t, ready(pool, time.Nanosecond))
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Contains(t, body, "in use 1 of 1, waiting 1, the oldest for ")

	status, body = asked(t, reachable(db, 50*time.Millisecond))
	assert.Equal(t, http.StatusServiceUnavailable, status, "a ping waits for a connection like any caller")
	assert.Contains(t, body, "does not answer")
	freed()
	status, body = asked(t, ready(pool, time.Nanosecond))
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "in use 0 of 1, waiting 0, the oldest for 0s\n", body)
	status, _ = asked(t, reachable(db, 10*time.Second))
	assert.Equal(t, http.StatusOK, status)
}
