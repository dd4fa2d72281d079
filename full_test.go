package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drivers"
)

var errTooMany = &mysql.MySQLError{Number: 1040, Message: "Too many connections"}

// crowdOf has so many callers use a pool at once, each for so long and so often, and returns how
// many of these uses failed.
func crowdOf(t *testing.T, db *sql.DB, callers, times int, each time.Duration) int {
	t.Helper()
	var failed atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range times {
				conn, err := db.Conn(t.Context())
				if err != nil {
					failed.Add(1)
					continue
				}
				elapse(each)
				assert.NoError(t, conn.Close())
			}
		})
	}
	all.Wait()
	return int(failed.Load())
}

func TestWhereTheServerHasFewerConnectionsThanThePoolCallersShareThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		f := &roomyFake{refuse: errTooMany, most: 4}
		db, pool := openPool(t, f, Config{MaxOpen: 20, Discovery: NoDiscovery, Logger: slog.New(log)})
		started := time.Now()
		useOnce(t, db)
		assert.Zero(t, crowdOf(t, db, 40, 5, 100*time.Millisecond))
		assert.Equal(t, 5*time.Second, time.Since(started), "four at a time, as if that were the limit")
		assert.LessOrEqual(t, f.refused, 19+10, "those of the first crowd; and then the server is asked once a second at most")
		assert.Equal(t, int64(4), int64(pool.Stats().Open))
		records := log.take()
		require.Len(t, records, 1, "nobody has an error, so it is said, once a minute")
		assert.Contains(t, records[0].message, "no room for another connection")
		assert.Contains(t, records[0].attrs["error"], "1040")

		f.mu.Lock()
		f.most = 20
		f.mu.Unlock()
		assert.Zero(t, crowdOf(t, db, 40, 30, 100*time.Millisecond))
		assert.Len(t, f.conns, 20, "room is noticed")
	})
}

func TestAServerThatIsFullOfOthersFailsCallersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := openPool(t, &roomyFake{refuse: errTooMany}, Config{MaxOpen: 20, Discovery: NoDiscovery})
		started := time.Now()
		assert.Equal(t, 40, crowdOf(t, db, 40, 1, 0))
		assert.Zero(t, time.Since(started), "there is no connection to wait for")
	})
}

// Callers who hold a connection and wait for another, all of them, would wait for ever.
func TestWhoWaitsForAFullServerWithAConnectionInHandIsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := openPool(t, &roomyFake{refuse: errTooMany, most: 3}, Config{MaxOpen: 20, Discovery: NoDiscovery})
		held := take(t, db, 3)
		started := time.Now()
		errs := make(chan error, len(held))
		for _, outer := range held {
			go func() {
				inner, err := db.Conn(t.Context())
				if errs <- err; err == nil {
					assert.NoError(t, inner.Close())
				}
				assert.NoError(t, outer.Close())
			}()
		}
		var full *ServerFullError
		require.ErrorAs(t, <-errs, &full)
		assert.Equal(t, 3, full.Ours)
		assert.Less(t, time.Since(started), fullPatience+2*time.Second)
		assert.NoError(t, <-errs, "its connection is for the next")
		assert.NoError(t, <-errs)
		synctest.Wait()
	})
}

func TestWhoRunsOutOfTimeAtAFullServerIsToldThatItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		db, pool := openPool(t, &roomyFake{refuse: errTooMany, most: 1}, Config{Name: "orders", MaxOpen: 20, Discovery: NoDiscovery, AcquireTimeout: 3 * time.Second,
			SlowAcquireThreshold: 2 * time.Second, StandstillThreshold: -1, Logger: slog.New(log)})
		held := takeElsewhere(t, db)
		_, err := db.Conn(t.Context())
		var acquire *AcquireError
		require.ErrorAs(t, err, &acquire)
		assert.Equal(t, drivers.TooMany, acquire.DialFailure)
		assert.Contains(t, err.Error(), "1 of 20 in use, 0 idle, nobody else waiting; the server has no room for more connections (too_many_connections)")
		require.ErrorIs(t, err, errTooMany, "what the server said is in it")
		assert.Equal(t, uint64(1), pool.Stats().Timeouts)
		var told []string
		for _, r := range log.take() {
			told = append(told, r.message)
		}
		assert.Contains(t, told, "sqllease: callers wait for a connection for longer than Config.SlowAcquireThreshold: the server has no room for more connections; raise its limit, or have fewer connections in other pools")

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err = db.Conn(ctx)
		require.ErrorIs(t, err, context.Canceled)
		giveBack(t, held)
		useOnce(t, db)
	})
}

func TestAConnectionThatIsClosedMakesRoomAtAFullServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, _ := openPool(t, &roomyFake{refuse: errTooMany, most: 2}, Config{MaxOpen: 20, Discovery: NoDiscovery})
		held := take(t, db, 2)
		got := make(chan error, 1)
		started := time.Now()
		go func() {
			conn, err := db.Conn(t.Context())
			got <- err
			assert.NoError(t, conn.Close())
		}()
		elapse(50 * time.Millisecond)
		require.Error(t, held[0].Raw(func(any) error { return driver.ErrBadConn }))
		require.NoError(t, <-got)
		assert.Equal(t, 50*time.Millisecond, time.Since(started), "nobody waits for the end of a rest")
		giveBack(t, held[1])
		synctest.Wait()
	})
}
