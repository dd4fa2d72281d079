package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sqllease/sqllease/internal/callstack"
)

// holds are the places of a pool, by the time that their connections were unused.
func holds(t *testing.T, db *sql.DB) []HoldSite {
	c, ok := ConnectorOf(db)
	require.True(t, ok)
	return c.Stats().Holds
}

// unusedPool is a pool on a driver whose calls take 10 ms.
func unusedPool(t *testing.T, rows int, cfg Config) *sql.DB {
	f := &leakFake{takes: map[string]time.Duration{}}
	for _, call := range []string{"query", "exec", "begin", "commit", "next", "close"} {
		f.takes[call] = 10 * time.Millisecond
	}
	for i := range max(rows, 1) {
		f.rows = append(f.rows, []driver.Value{int64(i)})
	}
	db, err := OpenDB(f, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// What database/sql does for one call of its own is several of the driver's, if that prepares what is
// to be run.
func TestAConnectionIsUsedWhileAStatementIsPrepared(t *testing.T) {
	for name, call := range map[string]func(*sql.DB) error{
		"exec":  func(db *sql.DB) error { _, err := db.Exec("UPDATE t SET a = ?", 1); return err },
		"query": func(db *sql.DB) error { var n int; return db.QueryRow("SELECT a FROM t WHERE b = ?", 1).Scan(&n) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &leakFake{takes: map[string]time.Duration{"prepare": 30 * time.Millisecond}, rows: [][]driver.Value{{int64(1)}}, skips: true}
				db, err := OpenDB(f, Config{MaxOpen: 1})
				require.NoError(t, err)
				c, _ := ConnectorOf(db)
				c.Record(10)
				for range 5 {
					require.NoError(t, call(db))
				}
				for _, l := range c.Recording().Leases {
					assert.Equal(t, []time.Duration{30 * time.Millisecond, 0}, []time.Duration{l.Hold(l.End), l.Unused})
				}
				assert.Empty(t, holds(t, db))
				require.NoError(t, db.Close())
			})
		})
	}
}

func TestAPlaceIsToldForHowLongItsConnectionsWereUnused(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		work                  func(*testing.T, *sql.DB)
		held, unused, longest time.Duration
	}{
		"a transaction": {func(t *testing.T, db *sql.DB) {
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			elapse(time.Second)
			_, err = tx.ExecContext(ctx, "UPDATE t SET a = 1")
			require.NoError(t, err)
			elapse(3 * time.Second)
			require.NoError(t, tx.Commit())
		}, 4030 * time.Millisecond, 4 * time.Second, 3 * time.Second},
		"a connection that nothing is done with": {func(t *testing.T, db *sql.DB) {
			conn, err := db.Conn(ctx)
			require.NoError(t, err)
			elapse(time.Second)
			require.NoError(t, conn.Close())
		}, time.Second, time.Second, time.Second},
		"after its last call": {func(t *testing.T, db *sql.DB) {
			conn, err := db.Conn(ctx)
			require.NoError(t, err)
			_, err = conn.ExecContext(ctx, "UPDATE t SET a = 1")
			require.NoError(t, err)
			elapse(2 * time.Second)
			require.NoError(t, conn.Close())
		}, 2010 * time.Millisecond, 2 * time.Second, 2 * time.Second},
		"between rows": {func(t *testing.T, db *sql.DB) {
			rows, err := db.QueryContext(ctx, "SELECT a FROM t")
			require.NoError(t, err)
			for rows.Next() {
				elapse(100 * time.Millisecond)
			}
			require.NoError(t, rows.Err())
		}, 460 * time.Millisecond, 400 * time.Millisecond, 100 * time.Millisecond},
		"a statement that is closed": {func(t *testing.T, db *sql.DB) {
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			st, err := tx.PrepareContext(ctx, "UPDATE t SET a = 1")
			require.NoError(t, err)
			elapse(time.Second)
			require.NoError(t, st.Close())
			elapse(time.Second)
			require.NoError(t, tx.Commit())
		}, 2030 * time.Millisecond, 2 * time.Second, time.Second},
		"before rows are closed": {func(t *testing.T, db *sql.DB) {
			rows, err := db.QueryContext(ctx, "SELECT a FROM t")
			require.NoError(t, err)
			require.True(t, rows.Next())
			elapse(5 * time.Second)
			require.NoError(t, rows.Close())
		}, 5020 * time.Millisecond, 5 * time.Second, 5 * time.Second},
		"rows with calls between them": {func(t *testing.T, db *sql.DB) {
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			rows, err := tx.QueryContext(ctx, "SELECT a FROM t")
			require.NoError(t, err)
			for rows.Next() {
				elapse(time.Second)
				_, err = tx.ExecContext(ctx, "UPDATE t SET a = 1")
				require.NoError(t, err)
			}
			require.NoError(t, tx.Commit())
		}, 4120 * time.Millisecond, 4 * time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := unusedPool(t, 4, Config{MaxOpen: 1})
				for range 3 {
					c.work(t, db)
				}
				places := holds(t, db)
				var sum HoldSite // the first lease may have another stack than the others
				for _, p := range places {
					assert.Contains(t, p.Stack.Site(), "unused_test.go")
					sum.Leases, sum.Held, sum.Unused, sum.Longest = sum.Leases+p.Leases, sum.Held+p.Held, sum.Unused+p.Unused, max(sum.Longest, p.Longest)
				}
				assert.Len(t, places, 1, "a place is one, whether a connection was free or not")
				assert.Equal(t, HoldSite{Leases: 3, Held: 3 * c.held, Unused: 3 * c.unused, Longest: c.longest}, sum)
			})
		})
	}
}

func TestWhatIsUsedAllTheTimeIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := unusedPool(t, 300, Config{MaxOpen: 1})
		for range 3 {
			_, err := db.ExecContext(t.Context(), "UPDATE t SET a = 1")
			require.NoError(t, err)
			rows, err := db.QueryContext(t.Context(), "SELECT a FROM t") // for longer than a second
			require.NoError(t, err)
			for rows.Next() {
			}
			require.NoError(t, rows.Err())
		}
		assert.Empty(t, holds(t, db))
	})
}

// A row whose time nobody noted hides the time beside it.
func TestTimeThatIsNotKnownToBeUnusedCountsAsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &leakFake{takes: map[string]time.Duration{}} // it answers at once
		for i := range 100 {
			f.rows = append(f.rows, []driver.Value{int64(i)})
		}
		db, err := OpenDB(f, Config{MaxOpen: 1})
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		elapse(time.Millisecond) // else it is not told at all
		rows, err := tx.QueryContext(t.Context(), "SELECT a FROM t")
		require.NoError(t, err)
		for i := 0; rows.Next(); i++ {
			switch i {
			case 5, 80: // before the times of every row are noted, and after
				elapse(time.Second)
			}
		}
		require.NoError(t, tx.Commit())
		places := holds(t, db)
		require.Len(t, places, 1)
		assert.Equal(t, time.Second+time.Millisecond, places[0].Unused)
	})
}

func TestUnusedTimeWithTheDriversOwnConnectionIsNotKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := unusedPool(t, 1, Config{MaxOpen: 1})
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		require.NoError(t, conn.Raw(func(c any) error {
			_, ok := Unwrap[*leakFakeConn](c)
			require.True(t, ok)
			elapse(time.Second)
			return nil
		}))
		require.NoError(t, conn.Close())
		assert.Empty(t, holds(t, db))
	})
}

func TestAReclaimedConnectionWasUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := unusedPool(t, 1, Config{MaxOpen: 1, LeakThreshold: time.Second, ReclaimAfter: 3 * time.Second})
		rows, err := db.QueryContext(t.Context(), "SELECT a FROM t")
		require.NoError(t, err)
		elapse(time.Minute)
		require.Error(t, rowsErr(rows))
		places := holds(t, db)
		require.Len(t, places, 1)
		assert.Equal(t, uint64(1), places[0].Leases)
		assert.Equal(t, 3*time.Second, places[0].Unused)
	})
}

// rowsErr reads what is left of rows, and tells what that met with.
func rowsErr(rows *sql.Rows) error {
	for rows.Next() {
	}
	_ = rows.Close()
	return rows.Err()
}

// here counts a lease of a place of its own: n is in its stack.
func (p *places) here(n int, unused time.Duration) {
	if n > 0 {
		p.here(n-1, unused)
		return
	}
	p.count(callstack.Capture(0), unused, rest{all: unused, longest: unused})
}

func TestPlacesAreBounded(t *testing.T) {
	var p places
	for i := range mostListed {
		p.here(i%callstack.Depth, time.Duration(i+1)*time.Second)
	}
	list := p.list()
	assert.LessOrEqual(t, len(list), callstack.Depth+1)
	for i := range list[1:] {
		assert.GreaterOrEqual(t, list[i].Unused, list[i+1].Unused)
	}

	for i := range uintptr(2 * mostPlaces) {
		p.mu.Lock()
		p.placeLocked(placeStack{stack: [callstack.Depth]uintptr{i}, frames: 1}, nil).leases.Add(1)
		p.mu.Unlock()
	}
	assert.Len(t, p.known, mostPlaces)
	assert.Positive(t, p.others.leases.Load())
	assert.Len(t, p.list(), mostListed)
}

// namedPlace is a place of that name.
func (p *places) namedPlace(name string) *place {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.placeLocked(placeStack{stack: [callstack.Depth]uintptr{uintptr(len(p.known) + 1)}, frames: 1}, nil)
	at.name = func() string { return name }
	return at
}

func TestTheMetricTellsThePlacesApartThatMatter(t *testing.T) {
	var p places
	observed := func() map[string]time.Duration {
		got := map[string]time.Duration{}
		p.observe(func(name string, unused time.Duration) { got[name] = unused })
		return got
	}
	assert.Empty(t, observed())
	const all = mostNamed + 3
	at := make([]*place, all)
	for i := range at {
		at[i] = p.namedPlace(fmt.Sprintf("place %d", i))
		at[i].unused.Add(int64(time.Duration(i+1) * time.Millisecond))
	}
	assert.Equal(t, map[string]time.Duration{notToldApart: all * (all + 1) / 2 * time.Millisecond}, observed(), "no place is worth a series yet")

	before, total := observed(), time.Duration(0)
	for round := range 5 {
		for i := range at {
			at[i].unused.Add(int64(time.Duration(i) * time.Second))
		}
		after := observed()
		for name, unused := range before {
			assert.GreaterOrEqual(t, after[name], unused, "a counter never goes down")
		}
		assert.Len(t, after, mostNamed+1, round)
		assert.NotContains(t, after, "place 1", "the places that were unused for longest come first")
		assert.NotContains(t, after, "place 0")
		total = 0
		for _, unused := range after {
			total += unused
		}
		before = after
	}
	want := time.Duration(0)
	for i := range at {
		want += time.Duration(at[i].unused.Load())
	}
	assert.Equal(t, want, total, "nothing is lost, and nothing counted twice")
}

func TestUnusedTimeIsAMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 1})
		seconds := func() map[string]float64 {
			got := map[string]float64{}
			for _, m := range p.collect(t) {
				if m.Name != "sqllease.unused_time" {
					continue
				}
				assert.Equal(t, "s", m.Unit)
				data, ok := m.Data.(metricdata.Sum[float64])
				require.True(t, ok)
				assert.True(t, data.IsMonotonic)
				for _, point := range data.DataPoints {
					place, _ := point.Attributes.Value("sqllease.place")
					got[place.AsString()] = point.Value
				}
			}
			return got
		}
		hold := func() {
			conn, err := p.db.Conn(t.Context())
			require.NoError(t, err)
			elapse(10 * time.Second)
			require.NoError(t, conn.Close())
		}
		exec(t, t.Context(), p.db, "DO 1")
		assert.Empty(t, seconds())
		var site string
		for range 2 {
			hold()
			site = holds(t, p.db)[0].Stack.Site()
			seconds()
		}
		assert.Equal(t, map[string]float64{site: 10, notToldApart: 10}, seconds())
	})
}

// Several readers of the metrics may ask at once. A place that gets its series from one of them
// has it with the others too, and no series begins below zero.
func TestPlacesThatAreObservedTwiceAtOnceNeverGoDown(t *testing.T) {
	p := &places{known: map[placeStack]*place{}}
	called, done := 0, make(chan struct{})
	again := func() {
		defer close(done)
		for _, at := range p.all() {
			at.unused.Add(int64(time.Second))
		}
		p.observe(func(_ string, unused time.Duration) { assert.GreaterOrEqual(t, unused, time.Duration(0)) })
	}
	for frames := range 2 {
		at := &place{name: func() string {
			if called++; called == 2 { // one place was read, and the other was not
				go again()
				select {
				case <-done:
				case <-time.After(50 * time.Millisecond): // it waits for its turn
				}
			}
			return "shop/orders.go:7"
		}}
		at.unused.Store(int64(5 * time.Second))
		p.known[placeStack{frames: frames}] = at
	}
	p.observe(func(_ string, unused time.Duration) { assert.GreaterOrEqual(t, unused, time.Duration(0)) })
	<-done
}
