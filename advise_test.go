package sqllease

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drivers"
)

// callersAtRandom come to a pool whose calls take 10 ms, so many in a second, and each uses it.
func callersAtRandom(rate float64, long time.Duration, use func()) {
	r := rand.New(rand.NewPCG(1, 1))
	var all sync.WaitGroup
	for end := time.Now().Add(long); time.Now().Before(end); {
		elapse(time.Duration(r.ExpFloat64() / rate * float64(time.Second)))
		all.Go(use)
	}
	all.Wait()
}

func execs(t *testing.T, db *sql.DB) {
	_, err := db.ExecContext(context.Background(), "DO 1")
	assert.NoError(t, err)
}

func TestALimitThatIsTooLowIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{Name: "orders", MaxOpen: 6})
		c.Record(10_000)
		callersAtRandom(500, 10*time.Second, func() { execs(t, db) })
		a := c.Advise(Goal{Wait: 10 * time.Millisecond})
		assert.False(t, a.Enough, a)
		assert.Empty(t, a.Refused, a)
		assert.True(t, 7 <= a.Limit && a.Limit <= 9, a)
		assert.True(t, a.Met, a)
		assert.Equal(t, 6, a.Recorded.Limit)
		assert.Contains(t, a.String(), `pool "orders": callers wait for connections`)
		assert.Equal(t, 6, c.Stats().Limit, "nothing is set")
	})
}

func TestALimitThatIsNotTheProblemIsCalledThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 30})
		c.Record(10_000)
		callersAtRandom(500, 10*time.Second, func() { execs(t, db) })
		a := c.Advise(Goal{})
		assert.True(t, a.Enough, a)
		assert.Contains(t, a.String(), "the limit is not the problem")
		assert.Less(t, a.Limit, 15, a)
	})
}

func TestWithoutALimitThereIsAdviceToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{})
		db.SetMaxIdleConns(100)
		c.Record(10_000)
		callersAtRandom(500, 10*time.Second, func() { execs(t, db) })
		a := c.Advise(Goal{Wait: 10 * time.Millisecond})
		assert.True(t, 7 <= a.Limit && a.Limit <= 9, a)
		assert.Contains(t, a.String(), "it has none now")
	})
}

func TestPlacesThatLeaveConnectionsUnusedAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 30})
		c.Record(10_000)
		callersAtRandom(300, 5*time.Second, func() {
			tx, err := db.BeginTx(context.Background(), nil)
			if assert.NoError(t, err) {
				elapse(50 * time.Millisecond)
				assert.NoError(t, tx.Rollback())
			}
		})
		a := c.Advise(Goal{})
		assert.Greater(t, a.UnusedShare, 0.6, a)
		require.NotEmpty(t, a.Places)
		assert.Contains(t, a.Places[0].Stack.Site(), "advise_test.go")
		assert.Contains(t, a.String(), "were unused, most of it at "+a.Places[0].Stack.Site())
	})
}

func TestWhoeverWaitsAsItIsReadHidesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 5})
		c.Record(10_000)
		done := make(chan struct{})
		go func() {
			callersAtRandom(900, 10*time.Second, func() { execs(t, db) })
			close(done)
		}()
		elapse(9 * time.Second)
		a := c.Advise(Goal{})
		assert.Equal(t, RefusedOverload, a.Refused, a)
		assert.Greater(t, a.Try, 5, a)
		<-done
	})
}

func TestConnectionsThatNeverComeBackAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 12, LeakThreshold: -1})
		for range 3 {
			conn, err := db.Conn(context.Background())
			require.NoError(t, err)
			defer func() { assert.NoError(t, conn.Close()) }()
		}
		elapse(time.Second)
		c.Record(0)
		c.Record(10_000)
		callersAtRandom(500, 10*time.Second, func() { execs(t, db) })
		a := c.Advise(Goal{Wait: 10 * time.Millisecond})
		assert.Equal(t, 3, a.Held, a)
		assert.True(t, 10 <= a.Limit && a.Limit <= 12, a)
		assert.Contains(t, a.String(), "3 connections were in use and did not come back")
	})
}

func TestAPoolThatRecordsNothingGivesNoAdvice(t *testing.T) {
	c, err := Wrap(&leakFake{}, Config{Name: "orders"})
	require.NoError(t, err)
	defer func() { assert.NoError(t, c.Close()) }()
	a := c.Advise(Goal{})
	assert.Equal(t, RefusedTooFewLeases, a.Refused)
	assert.Equal(t, `pool "orders": nothing is recorded yet: call Connector.Record, and ask again after a busy hour`, a.String())
}

func TestAdviceKnowsWhatTheServerHasForThePool(t *testing.T) {
	c, err := Wrap(&leakFake{}, Config{Instances: 4})
	require.NoError(t, err)
	defer func() { assert.NoError(t, c.Close()) }()
	assert.Zero(t, c.Advise(Goal{}).Ceiling)
	c.asking.known.Store(&drivers.Answer{MaxConnections: 103, Reserved: 3})
	assert.Equal(t, 25, c.Advise(Goal{}).Ceiling)
}

// Reports wait for the Max of their lane, whatever the limit of the pool is.
func TestAdviceDoesNotCountWaitsForALanesMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, c := recordedPool(t, Config{MaxOpen: 6, Lanes: map[string]Lane{"report": {Max: 1}}})
		c.Record(10_000)
		var callers atomic.Int64
		callersAtRandom(500, 10*time.Second, func() {
			ctx := context.Background()
			if callers.Add(1)%8 == 0 { // 62 a second, where 100 can be served
				ctx = WithLane(ctx, "report")
			}
			_, err := db.ExecContext(ctx, "DO 1")
			assert.NoError(t, err)
		})
		a := c.Advise(Goal{Wait: 10 * time.Millisecond})
		assert.Empty(t, a.Refused, a)
		assert.True(t, 7 <= a.Limit && a.Limit <= 9, a)
		assert.True(t, a.Met, a)
		assert.InDelta(t, 625, a.Limited, 60)
		assert.Contains(t, a.String(), "callers are not counted: their lane has a Max (Config.Lanes), and waits for that.")
	})
}
