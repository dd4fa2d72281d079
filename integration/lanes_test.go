package integration

import (
	"context"
	"database/sql"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// probes has goroutines keep a pool of ten connections busy with reports, so that each of these waits
// for two seconds, and asks the server so many times meanwhile, in a second each: how often does it
// answer? And how many reports wait all the time?
func probes(t *testing.T, db *sql.DB, c *sqllease.Connector, report string, n int) (passed, behind int) {
	t.Helper()
	var over atomic.Bool
	var all sync.WaitGroup
	for range 80 {
		all.Go(func() {
			for !over.Load() {
				_, err := db.ExecContext(t.Context(), report)
				assert.NoError(t, err)
			}
		})
	}
	time.Sleep(time.Second)
	behind = c.Stats().Waiting
	for range n {
		probe, end := context.WithTimeout(sqllease.WithLane(t.Context(), "probe"), time.Second)
		if db.PingContext(probe) == nil {
			passed++
		}
		end()
		behind = min(behind, c.Stats().Waiting)
		time.Sleep(100 * time.Millisecond)
	}
	over.Store(true)
	all.Wait()
	return passed, behind
}

func TestProbesGetThroughReports(t *testing.T) {
	for _, of := range []struct {
		*servers.Server
		report string
	}{{maria, "DO SLEEP(0.3)"}, {postgres, "SELECT pg_sleep(0.3)"}} {
		t.Run(of.Driver, func(t *testing.T) {
			t.Parallel()
			s := of.Server
			db, err := sqllease.Open(s.Driver, s.DSN(""), sqllease.Config{MaxOpen: 10, Lanes: map[string]sqllease.Lane{"probe": {Reserve: 1}}})
			require.NoError(t, err)
			c, _ := sqllease.ConnectorOf(db)
			passed, behind := probes(t, db, c, of.report, 20)
			dials := c.Stats().Dials
			require.NoError(t, db.Close())
			assert.Equal(t, 20, passed)
			assert.Greater(t, behind, 50, "else the pool was not busy: they would be behind so many without a lane")
			assert.Equal(t, uint64(10), dials, "connections stay open, that of the probes too")
		})
	}
}
