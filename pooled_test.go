package sqllease

import (
	"database/sql/driver"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/drivers/testdata/pgxpool"
)

// pooledFake is a connector as pgx's, which may take its connections from a pgxpool.
type pooledFake struct {
	lifetimeFake
	pool *pgxpool.Pool
}

// TestAPoolBelowKeepsItsConnections has a pgxpool below: each connection goes back to it
// after use, and is asked nothing, since it would be asked at each use.
func TestAPoolBelowKeepsItsConnections(t *testing.T) {
	log := &keptLog{}
	f := &pooledFake{pool: pgxpool.New(pgxpool.ConnConfig{Host: "db", Port: 5433, Database: "shop"}, nil)}
	f.announced = []any{[]driver.Value{"5min", "0"}}
	db, c := openPool(t, f, Config{Name: "shop", Dialect: DialectPostgreSQL, MaxOpen: 2, Logger: slog.New(log)})
	records := log.take()
	require.Len(t, records, 1)
	assert.Equal(t, slog.LevelInfo, records[0].level)
	assert.Equal(t, map[string]any{"pool": "shop"}, records[0].attrs)
	for _, text := range []string{"pgxpool", "stdlib.GetConnector(*pool.Config().ConnConfig)", "Config.MaxOpen below MaxConns", "SetMaxIdleConns(0)"} {
		assert.Contains(t, records[0].message, text)
	}
	assert.Equal(t, drivers.Endpoint{Address: "db", Port: 5433, Namespace: "shop"}, c.cfg.endpoint)

	useOnce(t, db)
	useOnce(t, db)
	assert.Equal(t, uint64(2), c.Stats().Dials)
	assert.Zero(t, c.Stats().Open)
	assert.Zero(t, c.Stats().IdleLimit)
	for _, s := range f.sessions() {
		assert.Equal(t, 1, s.uses, "nothing but the exec")
		assert.False(t, s.isOpen())
	}
	assert.Empty(t, log.take(), "it is said once")
}

func TestAPoolBelowKeepsTheIdleOnes(t *testing.T) {
	f := &pooledFake{pool: pgxpool.New(pgxpool.ConnConfig{}, nil)}
	_, err := Wrap(f, Config{MinIdle: 2})
	wantConfigError(t, err, "MinIdle", "2", "set the MinConns of that pool")
}

// TestAConnectorWithoutAPoolKeepsItsConnections has the same connector, made of a
// configuration.
func TestAConnectorWithoutAPoolKeepsItsConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		f := &pooledFake{}
		f.announced = []any{[]driver.Value{"5min", "0"}}
		db, c := openPool(t, f, Config{Dialect: DialectPostgreSQL, MaxOpen: 2, Logger: slog.New(log)})
		useOnce(t, db)
		useOnce(t, db)
		assert.Equal(t, uint64(1), c.Stats().Dials)
		elapse(2 * askAfter)
		assert.Equal(t, 5*time.Minute, c.Stats().IdleLimit)
		assert.Empty(t, log.take())
	})
}
