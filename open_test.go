package sqllease

import (
	"database/sql"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Open, Register, ConnectorOf and Attach.

func TestOpenPassesTheDriversRefusalOn(t *testing.T) {
	_, err := Open("no such driver", "", Config{})
	assert.ErrorContains(t, err, "no such driver")
	_, err = Open("mysql", "this is no data source name", Config{})
	_, plain := sql.Open("mysql", "this is no data source name")
	require.Error(t, plain)
	assert.Equal(t, plain, err)
}

func TestRegisterRefusesWhatCannotBeRegistered(t *testing.T) {
	wantConfigError(t, Register("no driver", nil, Config{}), "driver", "nil", "give Register the driver to wrap")
	wantConfigError(t, Register("no driver", (*lifetimeFake)(nil), Config{}), "driver", "nil", "give Register the driver to wrap")
	assert.NotContains(t, sql.Drivers(), "no driver")
	wantConfigError(t, Register("mysql", &lifetimeFake{}, Config{}), "name", `"mysql"`, "choose another")

	name := fmt.Sprintf("a driver of tests %d", len(sql.Drivers())) // a name is registered for good: each run has its own
	require.NoError(t, Register(name, &lifetimeFake{}, Config{}))
	wantConfigError(t, Register(name, &lifetimeFake{}, Config{}), "name", fmt.Sprintf("%q", name), "registered already; choose another")
	db, err := sql.Open(name, "")
	require.NoError(t, err)
	useOnce(t, db)
	c, ok := ConnectorOf(db)
	require.True(t, ok)
	assert.Equal(t, uint64(1), c.Stats().Dials)
	require.NoError(t, db.Close())
	assert.Zero(t, c.Stats().Open)
}

func TestAConnectorIsFoundOnlyWhereThereIsOne(t *testing.T) {
	plain := sql.OpenDB(&lifetimeFake{})
	defer func() { assert.NoError(t, plain.Close()) }()
	for name, db := range map[string]*sql.DB{"nil": nil, "zero": {}, "plain": plain} {
		c, ok := ConnectorOf(db)
		assert.False(t, ok, name)
		assert.Nil(t, c, name)
	}
	assert.Empty(t, plain.Stats().OpenConnections)

	c, err := Wrap(&lifetimeFake{}, Config{})
	require.NoError(t, err)
	db := sql.OpenDB(c)
	found, ok := ConnectorOf(db)
	assert.True(t, ok)
	assert.Same(t, c, found)
	require.NoError(t, db.Close())
	found, ok = ConnectorOf(db)
	assert.True(t, ok, "of a closed *sql.DB too: its last figures are of interest")
	assert.Same(t, c, found)
}

func TestAttachingNothingOrTwiceDoesNoHarm(t *testing.T) {
	f := &lifetimeFake{}
	db, c := openPool(t, f, Config{})
	c.Attach(nil)
	c.Attach(db)
	c.Attach(nil)
	db.SetMaxOpenConns(2)
	useOnce(t, db)
	assert.Equal(t, 2, c.Stats().Limit)
	assert.Equal(t, queueless, db.Stats().MaxOpenConnections)
	assert.Len(t, c.pools.attached(), 1)
}

func TestANumberIsUsedAgainOnceItsPoolIsClosed(t *testing.T) {
	open := func() *Connector {
		c, err := Wrap(&telemetryFake{}, Config{})
		require.NoError(t, err)
		return c
	}
	first, second := open(), open()
	assert.NotEqual(t, first.cfg.Name, second.cfg.Name)
	require.NoError(t, first.Close())
	for range 300 {
		again := open()
		assert.Equal(t, first.cfg.Name, again.cfg.Name)
		require.NoError(t, again.Close())
		require.NoError(t, again.Close(), "what is closed twice gives back no number that is another's")
	}
	require.NoError(t, second.Close())
}

// A connector that has no limit, and knows no *sql.DB of which it could learn one, says so
// once, with the line to add.
func TestAConnectorThatKnowsNoDatabaseSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		cfg    Config
		attach bool
		want   int
	}{
		"neither a limit nor a database": {Config{}, false, 1},
		"a limit":                        {Config{MaxOpen: 2}, false, 0},
		"a database":                     {Config{}, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &keptLog{}
				c.cfg.Logger = slog.New(log)
				w, err := Wrap(&telemetryFake{}, c.cfg)
				require.NoError(t, err)
				db := sql.OpenDB(w)
				if c.attach {
					w.Attach(db)
				}
				for range 3 {
					require.NoError(t, db.PingContext(t.Context()))
					db.SetMaxIdleConns(-1) // so that the next acquires anew
				}
				synctest.Wait()
				said := log.warnings()
				require.Len(t, said, c.want)
				for _, text := range said {
					assert.Contains(t, text, "c.Attach(db)")
				}
				require.NoError(t, db.Close())
			})
		})
	}
}
