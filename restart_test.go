package sqllease

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// After a restart of the server every connection that was open is dead, and
// many drivers find out by using it only. database/sql tries two of those it has,
// and then comes for a new one: it must not get another old one.
func TestAfterARestartOfTheServerNoOldSessionIsHandedOutAsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var restarted atomic.Int32 // connections below this number are dead
		f := &gateFake{t: t, most: 10, script: deadBelow(&restarted)}
		db, c := f.open(Config{MaxOpen: 10, MinIdle: 3, LeakThreshold: -1})
		giveBack(t, take(t, db, 1)...)
		synctest.Wait()
		require.GreaterOrEqual(t, c.Stats().Idle, 3, "the third is dialed while the first is on lease, or after")
		<-time.After(time.Second)
		restarted.Store(int32(c.Stats().Dials))
		for range 5 {
			_, err := db.ExecContext(t.Context(), "DO 1")
			require.NoError(t, err)
		}
		f.end(db, c)
	})
}

func TestClosingEndsADialAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t, script: func(ctx context.Context, _ *gateFakeConn, call string) error {
			if call == "dial" && ctx.Value(aheadKey{}) == nil {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		db, c := f.open(Config{MinIdle: 2})
		conn, err := db.Conn(context.WithValue(t.Context(), aheadKey{}, true))
		require.NoError(t, err)
		synctest.Wait()
		assert.Equal(t, 1, c.Stats().Dialing)
		require.NoError(t, conn.Close())
		require.NoError(t, db.Close())
		synctest.Wait()
		assert.Zero(t, c.Stats().Open)
	})
}

// aheadKey marks the context of a caller: a dial ahead has none.
type aheadKey struct{}
