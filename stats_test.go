package sqllease

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/clock"
)

func TestStatsTellWhatLeasesAreUsedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{takes: map[string]time.Duration{"exec": time.Second}}, Config{MaxOpen: 10})
		assert.Zero(t, p.c.Stats().Use)
		conn, tx, rows := p.lease(t), leakTx(t, p.DB), leakRows(t, p.DB)
		done := make(chan error, 1)
		go func() {
			_, err := p.ExecContext(t.Context(), "DO 1")
			done <- err
		}()
		synctest.Wait()
		s := p.c.Stats()
		assert.Equal(t, UseStats{Busy: 1, OpenRows: 1, InTx: 1, Idle: 1}, s.Use)
		assert.Equal(t, 4, s.InUse)
		require.NoError(t, <-done)
		require.NoError(t, rows.Close())
		assert.Equal(t, UseStats{InTx: 1, Idle: 1}, p.c.Stats().Use)
		require.NoError(t, tx.Close())
		require.NoError(t, conn.Close())
		assert.Zero(t, p.c.Stats().Use)
	})
}

func TestStatsTellWhereLeasesAreTakenThatAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newLeakPool(t, &leakFake{}, Config{MaxOpen: 10, ReclaimAfter: time.Minute})
		assert.Empty(t, p.c.Stats().Sites)
		for range 3 {
			leakTx(t, p.DB)
		}
		leakPause(10 * time.Second)
		conn := p.lease(t)
		leakPause(30 * time.Second)
		require.NoError(t, conn.Close())
		leakPause(time.Hour)
		sites := p.c.Stats().Sites
		require.Len(t, sites, 2, "late returns and reclaims are no reports of their own")
		assert.Contains(t, sites[0].Stack.Site(), "sqllease.leakTx")
		assert.Equal(t, 3, sites[0].Times)
		assert.Equal(t, ClassUnused, sites[0].Class)
		assert.Contains(t, sites[1].Stack.Site(), "sqllease.(*leakPool).lease")
		assert.Equal(t, 1, sites[1].Times)
		assert.Equal(t, 10*time.Second, sites[1].Last.Sub(sites[0].Last))
	})
}

func TestThePlacesThatAreRememberedAreBounded(t *testing.T) {
	var s sites
	now := clock.Now()
	report := func(place int, at time.Duration) (told bool) {
		told = s.note(&Leak{Lease: Lease{Stack: Stack{uintptr(place + 1)}}}, now.Add(at))
		require.LessOrEqual(t, len(s.known), mostSites)
		return told
	}
	for i := range 10 * mostSites { // each comes once, but for one that goes on
		if i%2 == 1 {
			assert.False(t, report(0, time.Duration(i)))
		} else if told := report(i, time.Duration(i)); i/2 < mostSites {
			assert.True(t, told, "each is told at first")
		}
	}
	assert.Len(t, s.known, mostSites)
	list := s.list()
	assert.Len(t, list, mostSites)
	assert.Equal(t, 5*mostSites+1, list[0].Times, "what goes on is not forgotten")
	assert.True(t, report(20*mostSites, 2*time.Minute), "a new place takes that of an old one")
}

// More places than are remembered, which come by turns, are each told once a minute at most.
func TestPlacesThatComeByTurnsAreNotToldAgainAndAgain(t *testing.T) {
	var s sites
	now, told := clock.Now(), 0
	for round := range 20 {
		for place := range mostSites + 100 {
			if s.note(&Leak{Lease: Lease{Stack: Stack{uintptr(place + 1)}}}, now.Add(time.Duration(round)*time.Second)) {
				told++
			}
		}
	}
	assert.Equal(t, mostSites+1, told, "those that are remembered, and once the others together")
}

// BenchmarkFlood is a pool that is full, under callers who give up at once:
// what the error costs to make, with any number of leases and waiters.
func BenchmarkFlood(b *testing.B) {
	for _, leases := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprintf("leases=%d", leases), func(b *testing.B) {
			db, err := OpenDB(&leakFake{}, Config{MaxOpen: leases, Logger: slog.New(slog.DiscardHandler)})
			require.NoError(b, err)
			b.Cleanup(func() { assert.NoError(b, db.Close()) })
			for range leases {
				_, err := db.Conn(context.Background())
				require.NoError(b, err)
			}
			ended, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
			defer cancel()
			c, _ := ConnectorOf(db)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Connect(ended); err == nil { // database/sql itself does not come here with such a context
					b.Fatal("there is no room")
				}
			}
		})
	}
}
