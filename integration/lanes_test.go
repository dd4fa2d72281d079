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
// answer?
func probes(t *testing.T, db *sql.DB, report string, n int) (passed int) {
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
	for range n {
		probe, end := context.WithTimeout(sqllease.WithLane(t.Context(), "probe"), time.Second)
		if db.PingContext(probe) == nil {
			passed++
		}
		end()
		time.Sleep(100 * time.Millisecond)
	}
	over.Store(true)
	all.Wait()
	return passed
}

func TestProbesGetThroughReports(t *testing.T) {
	for _, of := range []struct {
		*servers.Server
		report string
	}{{maria, "DO SLEEP(0.3)"}, {postgres, "SELECT pg_sleep(0.3)"}} {
		t.Run(of.Driver, func(t *testing.T) {
			t.Parallel()
			s := of.Server
			bare, err := sql.Open(s.Driver, s.DSN(""))
			require.NoError(t, err)
			bare.SetMaxOpenConns(10)
			without := probes(t, bare, of.report, 5)
			require.NoError(t, bare.Close())

			db, err := sqllease.Open(s.Driver, s.DSN(""), sqllease.Config{MaxOpen: 10, Lanes: map[string]sqllease.Lane{"probe": {Reserve: 1}}})
			require.NoError(t, err)
			passed := probes(t, db, of.report, 20)
			c, _ := sqllease.ConnectorOf(db)
			dials := c.Stats().Dials
			require.NoError(t, db.Close())
			t.Logf("%s: %d of 20 probes pass; bare, %d of 5", s.Driver, passed, without)
			assert.Equal(t, 20, passed)
			assert.Less(t, without, 5, "else the pool was not busy")
			assert.Equal(t, uint64(10), dials, "connections stay open, that of the probes too")
		})
	}
}
