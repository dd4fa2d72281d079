package sqllease

import (
	"database/sql"
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What counts as traffic, and what a limit is that nobody can mean.

// A connection on which nothing was called has not spoken with its server.
func TestALeaseWithoutACallIsNoTraffic(t *testing.T) {
	for name, use := range map[string]func(*testing.T, *sql.DB){
		"taken and given back":            func(t *testing.T, db *sql.DB) { giveBack(t, take(t, db, 1)...) },
		"a ping that the driver has none": func(t *testing.T, db *sql.DB) { require.NoError(t, db.PingContext(t.Context())) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{idleLimit: time.Minute}
				db, c := openPool(t, f, Config{NetworkIdleLimit: time.Minute})
				useOnce(t, db)
				for range 20 {
					elapse(5 * time.Second)
					use(t, db)
				}
				useOnce(t, db)
				assert.Zero(t, f.sessions()[0].late)
				assert.Equal(t, uint64(2), c.Stats().Dials)
			})
		})
	}
}

// A Parse that takes seconds for nanoseconds would have connections dialed for Config.MinIdle
// one after the other.
func TestAnIdleLimitWithoutAUnitIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{lifetimeSeconds(28800)}}
		db, c, l := openLimited(t, f, Config{MinIdle: 1, Discovery: &Discovery{
			Query: "SHOW LIMITS",
			Parse: func([][]driver.Value) (ServerLimits, error) { return ServerLimits{Idle: 28800}, nil },
		}})
		require.NoError(t, c.Ready(t.Context()))
		elapse(time.Second)
		assert.Equal(t, uint64(1), c.Stats().Dials)
		assert.Zero(t, c.Stats().IdleLimit)
		l.wantOneWarning(t, map[string]string{"error": `got "28.8µs, which is below 1ms; did you forget a unit?", expected an answer that Discovery.Parse understands`})
		endLimited(t, db, c, f)
	})
}
