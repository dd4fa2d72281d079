package orm

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/fx"

	"github.com/sqllease/sqllease"
)

// connectorOf is the provider of an application: the driver's connector.
func connectorOf(dsn string) (driver.Connector, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	return mysql.NewConnector(cfg)
}

// run starts an application made of these parts, and stops it at the end of the test.
func run(t *testing.T, parts ...fx.Option) {
	app := fx.New(fx.NopLogger, fx.Options(parts...))
	require.NoError(t, app.Start(t.Context()))
	t.Cleanup(func() { assert.NoError(t, app.Stop(context.WithoutCancel(t.Context()))) })
}

// given is what a container has to begin with.
func given(cfg sqllease.Config) fx.Option {
	return fx.Options(fx.Supply(maria.DSN(""), cfg), fx.Provide(connectorOf))
}

// wantLimit checks that a database is wrapped and has a limit of 3.
func wantLimit(t *testing.T, db *sql.DB) {
	defer func() { assert.NoError(t, db.Close()) }()
	require.NoError(t, db.PingContext(t.Context()))
	pool, err := ProvidePool(db)
	require.NoError(t, err)
	assert.EqualValues(t, 1, pool.Stats().Acquires)
	assert.Eventually(t, func() bool { return pool.Stats().Limit == 3 }, 10*time.Second, time.Millisecond)
}

// TestAContainerOpensTheDatabase has one in which the application opens it.
func TestAContainerOpensTheDatabase(t *testing.T) {
	var db *sql.DB
	var pool *sqllease.Connector
	run(t, given(sqllease.Config{MaxOpen: 3}), fx.Provide(ProvideDB, ProvidePool), fx.Populate(&db, &pool))
	found, _ := sqllease.ConnectorOf(db)
	assert.Same(t, found, pool)
	wantLimit(t, db)
}

// TestAContainerOpensAConnector has one in which a framework opens the database, on the
// connector that the container has, and sets its limit.
func TestAContainerOpensAConnector(t *testing.T) {
	var db *sql.DB
	framework := func(c driver.Connector) *sql.DB {
		db := sql.OpenDB(c)
		db.SetMaxOpenConns(3)
		return db
	}
	run(t, given(sqllease.Config{}), fx.Provide(framework), fx.Decorate(DecorateConnector), fx.Invoke(attach), fx.Populate(&db))
	wantLimit(t, db)
	_, err := DecorateConnector(nil, sqllease.Config{})
	assert.Error(t, err)
}

// TestAFrameworkOpensByName has one that knows the name of a driver and a DSN.
func TestAFrameworkOpensByName(t *testing.T) {
	if !slices.Contains(sql.Drivers(), "mysql-leased") { // of another run in this process
		require.NoError(t, register(sqllease.Config{}))
	}
	db, err := sql.Open("mysql-leased", maria.DSN(""))
	require.NoError(t, err)
	db.SetMaxOpenConns(3)
	attach(db)
	wantLimit(t, db)
}

// TestAnOpenDatabaseIsNotWrapped is what nothing can be done about.
func TestAnOpenDatabaseIsNotWrapped(t *testing.T) {
	db, err := sql.Open("mysql", maria.DSN(""))
	require.NoError(t, err)
	defer func() { assert.NoError(t, db.Close()) }()
	attach(db)
	_, err = ProvidePool(db)
	assert.Error(t, err)
}
