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
)

// countingFull is a server that counts those too that it is about to refuse.
type countingFull struct {
	leakFake
	mu                 sync.Mutex
	room, there, dials int
}

func (f *countingFull) Connect(ctx context.Context) (driver.Conn, error) {
	f.mu.Lock()
	f.there++
	f.dials++
	f.mu.Unlock()
	elapse(10 * time.Millisecond)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.there > f.room {
		f.there--
		return nil, errTooMany
	}
	return &countedConn{leakFakeConn{&f.leakFake}, f}, nil
}

type countedConn struct {
	leakFakeConn
	of *countingFull
}

func (c *countedConn) Close() error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.there--
	return nil
}

func TestACrowdAtAServerWithLittleRoomIsServedInItsOrder(t *testing.T) {
	for _, room := range []int{1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			f := &countingFull{room: room}
			db, c := openPool(t, f, Config{Discovery: NoDiscovery, MaxOpen: 30})
			var all sync.WaitGroup
			var mu sync.Mutex
			var order []int
			const callers = 60
			for i := range callers {
				all.Go(func() {
					elapse(time.Duration(i) * time.Microsecond)
					conn, err := db.Conn(context.Background())
					if !assert.NoError(t, err) {
						return
					}
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					elapse(50 * time.Millisecond)
					require.NoError(t, conn.Close())
				})
			}
			all.Wait()
			t.Log(room, f.dials, order)
			late := 0
			for i := 1; i < len(order); i++ {
				late = max(late, order[i-1]-order[i])
			}
			assert.LessOrEqual(t, late, 30, "nobody is overtaken by more than the crowd that dialed with them")
			assert.Len(t, order, callers)
			assert.Less(t, f.dials, 2*callers)
			assert.Zero(t, c.Stats().Waiting)
		})
	}
}

// A server without any room at all: all are failed, each after one dial of its own or two.
func TestACrowdAtAFullServerIsFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &countingFull{}
		db, c := openPool(t, f, Config{Discovery: NoDiscovery, MaxOpen: 30})
		begun := time.Now()
		assert.Equal(t, 60, crowdOf(t, db, 60, 1, 0))
		assert.LessOrEqual(t, f.dials, 120)
		assert.LessOrEqual(t, time.Since(begun), 6*time.Second)
		assert.Zero(t, c.Stats().Waiting+c.Stats().Dialing+c.Stats().Open)
		t.Log(f.dials, time.Since(begun))
		// room comes and goes
		for room := range 4 {
			f.mu.Lock()
			f.room = room
			f.mu.Unlock()
			failed := crowdOf(t, db, 60, 3, 20*time.Millisecond)
			t.Log(room, failed, f.dials, c.Stats().Open)
			if room > 0 {
				assert.Zero(t, failed)
			}
			assert.Zero(t, c.Stats().Waiting+c.Stats().Dialing)
		}
	})
}
