package sqllease

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An application opens its database, and sets its logger afterwards.
func TestTheDefaultLoggerIsTheOneOfTheMoment(t *testing.T) {
	before := slog.Default()
	defer slog.SetDefault(before)
	synctest.Test(t, func(t *testing.T) {
		db, err := OpenDB(&leakFake{}, Config{LeakThreshold: time.Second})
		require.NoError(t, err)
		log := &keptLog{}
		slog.SetDefault(slog.New(log))
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		elapse(2 * time.Second)
		records := log.take()
		require.Len(t, records, 1)
		assert.Equal(t, slog.LevelWarn, records[0].level)
		assert.Equal(t, uint64(1), records[0].attrs["leak.lease"])
		require.NoError(t, conn.Close())
		require.NoError(t, db.Close())
	})
}
