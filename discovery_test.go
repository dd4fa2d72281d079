package sqllease

import (
	"database/sql/driver"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDiscoveryIsOfEachSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{
			lifetimeSeconds(28800), lifetimeSeconds(60), errors.New("not now"), lifetimeSeconds(0),
		}}
		db, c := lifetimeOpen(t, f, Config{Dialect: DialectMySQL, Logger: badInputLogger(&badInputLog{})})
		for _, want := range []time.Duration{
			8 * time.Hour,
			time.Minute,
			time.Minute, // what could not be found out is taken to be as it was
			0,
		} {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			defer func() { assert.NoError(t, conn.Close()) }()
			assert.Equal(t, want, c.Stats().IdleLimit)
		}
		assert.Equal(t, uint64(1), c.Stats().DiscoveryFailures)
		assert.Equal(t, uint64(4), c.Stats().Dials)
	})
}

func TestPostgreSQLsTimeoutsAreDiscovered(t *testing.T) {
	for _, dialect := range []Dialect{DialectPostgreSQL, DialectCockroachDB} {
		synctest.Test(t, func(t *testing.T) {
			f := &lifetimeFake{announced: []any{[]driver.Value{[]byte("5min"), "10s"}}}
			db, c := lifetimeOpen(t, f, Config{Dialect: dialect})
			lifetimeUse(t, db)
			assert.Equal(t, 5*time.Minute, c.Stats().IdleLimit)
			assert.Equal(t, 270*time.Second, c.Stats().Lifetime)
			assert.Equal(t, int64(10*time.Second), c.idleTxLimit.Load())
		})
	}
}
